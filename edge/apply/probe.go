package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"selvedge/schema/nodestate"
)

// While a container starts, probes come quickly and ever slower, up to its interval.
const (
	firstRetry     = 25 * time.Millisecond
	firstExecRetry = 250 * time.Millisecond // each starts a process
)

func interval(p *nodestate.Probe) time.Duration {
	return orDefault(time.Duration(p.IntervalMS)*time.Millisecond, 5*time.Second)
}

func timeout(p *nodestate.Probe) time.Duration {
	return orDefault(time.Duration(p.TimeoutMS)*time.Millisecond, 2*time.Second)
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// retryAfter returns the delay that follows one of a starting container; zero asks for the first.
func retryAfter(p *nodestate.Probe, d time.Duration) time.Duration {
	if d <= 0 {
		if d = firstRetry; p.Exec != nil {
			d = firstExecRetry
		}
	} else {
		d += d / 2
	}
	return min(d, interval(p))
}

// prober asks containers how they are.
type prober struct {
	rt     Runtime
	client *http.Client
}

func newProber(rt Runtime) *prober {
	return &prober{rt: rt, client: &http.Client{
		// a kept connection would hide that the port is gone; the agent's proxy is none of the container's
		Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil},
		// 300–399 is healthy as it is
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// probe asks once; nil means healthy.
func (p *prober) probe(ctx context.Context, i Instance, pr *nodestate.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, timeout(pr))
	defer cancel()
	err := p.ask(ctx, i, pr)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("no answer within %s", timeout(pr))
	}
	return err
}

func (p *prober) ask(ctx context.Context, i Instance, pr *nodestate.Probe) error {
	if pr.Exec != nil {
		x, ok := p.rt.(Execer)
		if !ok {
			return errors.New("this runtime cannot run a command in a container; use an http or tcp probe")
		}
		code, out, err := x.Exec(ctx, i.ID, pr.Exec.Command)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("%q exited with %d: %s", pr.Exec.Command, code, lastPart(out, 200))
		}
		return nil
	}
	if i.Address == "" {
		return errors.New("the container has no address on this node; use an exec probe with network none")
	}
	switch {
	case pr.HTTP != nil:
		url := "http://" + net.JoinHostPort(i.Address, strconv.Itoa(pr.HTTP.Port)) + pr.HTTP.Path
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", "selvedge-probe")
		res, err := p.client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		if res.StatusCode < 200 || res.StatusCode > 399 {
			return fmt.Errorf("GET %s: %s: %s", url, res.Status, body)
		}
		return nil
	case pr.TCP != nil:
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(i.Address, strconv.Itoa(pr.TCP.Port)))
		if err != nil {
			return err
		}
		return c.Close()
	}
	return errors.New("the probe says neither http, tcp nor exec")
}

func lastPart(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
