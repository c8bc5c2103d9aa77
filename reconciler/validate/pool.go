package validate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"selvedge/schema/fleet"
)

const (
	exitCPU     = 86                            // of a child that used up its processor time
	childMagic  = "selvedge-evaluate-untrusted" // argv[1] of a child
	unitsALife  = 64                            // CUE's contexts never give memory back
	maxResident = 96 << 20                      // bytes after a unit, above which a child is not used again
	maxIdle     = 30 * time.Second
)

// pool keeps evaluator children.
type pool struct {
	limits Limits

	mu     sync.Mutex
	idle   []*child
	closed bool
}

// child is one evaluator process, used by one goroutine at a time.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *os.File
	stderr *tail
	units  int
	timer  *time.Timer // kills it when it has been idle for long
	waited chan struct{}
	err    error // of Wait, once waited is closed
}

// tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const maxTail = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := maxTail - len(t.b); room > 0 { // a Go traceback says why in its first lines
		t.b = append(t.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

func (p *pool) get() (*child, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, fs.ErrClosed
	}
	for n := len(p.idle); n > 0; n = len(p.idle) {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		if c.timer.Stop() {
			p.mu.Unlock()
			return c, nil
		}
	}
	p.mu.Unlock()
	return p.start()
}

// put keeps a child for the next unit, or ends it.
func (p *pool) put(c *child) {
	if c.units >= unitsALife || residentSize(c.cmd.Process.Pid) > maxResident {
		c.end()
		return
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		c.end()
		return
	}
	defer p.mu.Unlock()
	c.timer = time.AfterFunc(maxIdle, func() {
		p.mu.Lock()
		for i, x := range p.idle {
			if x == c {
				p.idle = append(p.idle[:i], p.idle[i+1:]...)
				break
			}
		}
		p.mu.Unlock()
		c.end()
	})
	p.idle = append(p.idle, c)
}

// trim ends all idle children but one: what follows a round needs memory, too.
func (p *pool) trim() {
	p.mu.Lock()
	var spare []*child
	if n := len(p.idle); n > 1 {
		spare = append(spare, p.idle[:n-1]...)
		p.idle = append(p.idle[:0], p.idle[n-1])
	}
	p.mu.Unlock()
	for _, c := range spare {
		if c.timer.Stop() {
			c.end()
		} else {
			<-c.waited
		}
	}
}

func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		if c.timer.Stop() {
			c.end()
		} else {
			<-c.waited
		}
	}
}

func (p *pool) start() (*child, error) {
	exe, err := selfPath()
	if err != nil {
		return nil, fmt.Errorf("find the evaluator: %w", err)
	}
	c, err := p.exec(exe, true)
	if err != nil { // a container without the right to make namespaces
		c, err = p.exec(exe, false)
	}
	if err != nil {
		return nil, fmt.Errorf("start an evaluator: %w", err)
	}
	return c, nil
}

func (p *pool) exec(exe string, alone bool) (*child, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c := &child{out: r, stderr: new(tail), waited: make(chan struct{})}
	c.cmd = exec.Command(exe, childMagic, strconv.FormatInt(p.limits.Memory, 10), strconv.FormatInt(int64(p.limits.CPU), 10)) // #nosec G204 -- itself
	c.cmd.Env = []string{}
	c.cmd.Dir = "/"
	c.cmd.Stdout = w
	c.cmd.Stderr = c.stderr
	if alone && !isolate(c.cmd) {
		r.Close()
		w.Close()
		return nil, errors.ErrUnsupported
	}
	if c.in, err = c.cmd.StdinPipe(); err == nil {
		err = c.cmd.Start()
	}
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.waited)
	}()
	return c, nil
}

// end kills the child and waits for it.
func (c *child) end() {
	_ = c.cmd.Process.Kill()
	<-c.waited
	c.out.Close()
}

// reader answers a child's questions.
type reader interface {
	list(dir string, cueOnly bool) ([]byte, error)
	read(file string) ([]byte, error)
}

// budgetError ends an evaluation that asks for too much.
type budgetError struct{ what string }

func (e *budgetError) Error() string { return e.what }

// evaluate runs one job in a child. A unit that has to be killed is a result, not an
// error; an error is one of the environment.
func (p *pool) evaluate(ctx context.Context, j job, src reader) (*result, error) {
	for attempt := 0; ; attempt++ {
		c, err := p.get()
		if err != nil {
			return nil, err
		}
		res, why, err := c.run(ctx, j, src, p.limits)
		switch {
		case err != nil:
			c.end()
			return nil, err
		case why == "":
			p.put(c)
			return res, nil
		}
		c.end()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		exceeded := why != diedAlone
		if !exceeded {
			// Nothing says that the unit is to blame: the kernel or a person may have killed it.
			if attempt == 0 {
				continue
			}
			why = "the evaluator died twice: " + c.epitaph() + "; try again, and see whether the machine has memory to spare"
		}
		return &result{Role: roleUnknown, Killed: true, Exceeded: exceeded, Problems: []fleet.Problem{{
			Severity: fleet.Error, Position: fleet.Position{File: filePath(j.Dir)},
			Message: "evaluation stopped: " + why,
		}}}, nil
	}
}

func filePath(dir string) string {
	if dir == "." {
		return "platform.cue"
	}
	return dir
}

const diedAlone = "died"

// run gives the child a job and answers its questions until it has a result. why says
// what was exceeded when there is none.
func (c *child) run(ctx context.Context, j job, src reader, l Limits) (res *result, why string, err error) {
	payload, err := json.Marshal(j)
	if err != nil {
		return nil, "", err
	}
	c.units++
	wall := time.NewTimer(l.Wall)
	defer wall.Stop()
	done := make(chan struct{})
	stopped := make(chan string, 1)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-done:
			stopped <- ""
			return
		case <-wall.C:
			stopped <- fmt.Sprintf("it took longer than %v; %s", l.Wall, simplify)
		case <-ctx.Done():
			stopped <- "cancelled"
		}
		_ = c.cmd.Process.Kill()
	})
	res, why, err = c.talk(payload, src, l)
	close(done)
	watch.Wait()
	if s := <-stopped; s != "" {
		return nil, s, nil
	}
	if err != nil && why == "" {
		var env *environmentError
		if errors.As(err, &env) {
			return nil, "", env.err
		}
		c.end()
		return nil, c.reason(err, l), nil
	}
	return res, why, nil
}

const simplify = "look for comprehensions inside comprehensions, disjunctions that multiply, and structs that double"

type environmentError struct{ err error }

func (e *environmentError) Error() string { return e.err.Error() }

func (c *child) talk(payload []byte, src reader, l Limits) (*result, string, error) {
	if err := writeFrame(c.in, frameJob, payload); err != nil {
		return nil, "", err
	}
	for {
		kind, body, err := readFrame(c.out, l.Output)
		if err != nil {
			var much *tooMuchError
			if errors.As(err, &much) {
				return nil, fmt.Sprintf("its result has %d bytes, more than %d; split the workspace", much.got, much.max), nil
			}
			return nil, "", err
		}
		var answer []byte
		switch kind {
		case frameRead:
			answer, err = src.read(string(body))
		case frameList, frameCUE:
			answer, err = src.list(string(body), kind == frameCUE)
		case frameResult:
			res := new(result)
			if err := json.Unmarshal(body, res); err != nil {
				return nil, "", fmt.Errorf("result of the evaluator: %w", err)
			}
			for i := range res.Problems {
				res.Problems[i] = printable(res.Problems[i])
			}
			return res, "", nil
		default:
			return nil, "", fmt.Errorf("frame of kind %d from the evaluator", kind)
		}
		status := answerOK
		var much *tooMuchError
		var budget *budgetError
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist):
			status = answerMissing
		case errors.As(err, &much):
			status, answer = answerTooLarge, []byte(much.Error())
		case errors.As(err, &budget):
			return nil, budget.what, nil
		default:
			return nil, "", &environmentError{err}
		}
		if err := writeFrame(c.in, frameAnswer, []byte{status}, answer); err != nil {
			return nil, "", err
		}
	}
}

// reason says why a child that is gone died.
func (c *child) reason(err error, l Limits) string {
	text := c.stderr.String()
	var exit *exec.ExitError
	switch {
	case errors.As(c.err, &exit) && exit.ExitCode() == exitCPU:
		return fmt.Sprintf("it used more than %v of processor time; %s", l.CPU, simplify)
	case strings.Contains(text, "stack overflow") || strings.Contains(text, "stack exceeds"):
		return "values are nested too deeply; flatten them"
	// Go 1.26's collector follows a nil pointer when it gets no memory for itself; a
	// nil pointer of the evaluator would be a panic, and caught.
	case strings.Contains(text, "out of memory") || strings.Contains(text, "cannot allocate") || strings.HasPrefix(text, "SIGSEGV"):
		return fmt.Sprintf("it needed more than %d MiB of memory; split the workspace, or %s", l.Memory>>20, simplify)
	}
	return diedAlone
}

func (c *child) epitaph() string {
	if line, _, _ := bytes.Cut([]byte(c.stderr.String()), []byte("\n")); len(line) > 0 {
		return string(line[:min(len(line), 200)])
	}
	if c.err != nil {
		return c.err.Error()
	}
	return "without a word"
}
