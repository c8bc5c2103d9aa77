package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"selvedge/test/env"
)

const chromium = "/usr/bin/chromium"

// engine is the one browser of all tests; each has a context, and so cookies, of its own.
type engine struct {
	ctx  context.Context
	stop func()
}

var (
	shared *engine
	once   sync.Once
)

func start(t *testing.T) *engine {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser takes long")
	}
	_, err := os.Stat(chromium)
	if errors.Is(err, os.ErrNotExist) {
		err = errors.New("no " + chromium + ": apt-get install chromium, or make deps")
	}
	env.Need(t, err)
	once.Do(func() {
		opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU,
			chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(1280, 900))
		alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
		ctx, stop := chromedp.NewContext(alloc)
		shared = &engine{ctx, func() { stop(); stopAlloc() }}
		if err := chromedp.Do(ctx); err != nil {
			env.Need(t, fmt.Errorf("chromium does not start: %w", err))
		}
	})
	return shared
}

// person is a tab with a session of its own, and what went wrong in it.
type person struct {
	t   *testing.T
	b   *bed
	ctx context.Context

	mu        sync.Mutex
	wrong     []string
	calm      bool // errors of the network are expected
	disturbed bool // the machine's network changed: see scenario
	asked     int
}

// scenario runs a test again if the machine's network changed meanwhile, as it does when other
// tests make interfaces: Chromium then drops all its connections, loopback too.
func scenario(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	start(t)
	for range 8 {
		if undisturbed(t, body) {
			return
		}
		t.Log("the network changed, and Chromium dropped its connections: once more")
	}
	t.Error("the network changes all the time")
}

var errDisturbed = errors.New("disturbed")

func undisturbed(t *testing.T, body func(t *testing.T)) (ok bool) {
	defer func() {
		if r := recover(); r == errDisturbed { // it is that very one
			ok = false
		} else if r != nil {
			panic(r)
		}
	}()
	body(t)
	return true
}

// open gives somebody a browser.
func (b *bed) open(t *testing.T) *person {
	t.Helper()
	ctx, stop := chromedp.NewContext(start(t).ctx, chromedp.WithNewBrowserContext())
	must(t, chromedp.Do(ctx)) // without a deadline, which would be the tab's
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	p := &person{t: t, b: b, ctx: ctx}
	u, err := url.Parse(b.url)
	must(t, err)
	must(t, chromedp.Listen(ctx, func(ev any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := ev.(type) {
		case *network.EventRequestWillBeSent:
			p.asked++
			if to, err := url.Parse(e.Request.URL); err != nil || to.Host != u.Host && to.Scheme != "data" && to.Scheme != "about" {
				p.wrong = append(p.wrong, "a request to another host: "+e.Request.URL)
			}
		case *network.EventLoadingFailed:
			p.disturbed = p.disturbed || strings.Contains(e.ErrorText, "ERR_NETWORK_CHANGED")
		case *runtime.EventExceptionThrown:
			p.wrong = append(p.wrong, "a script failed: "+fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.Exception))
		case *log.EventEntryAdded:
			p.disturbed = p.disturbed || strings.Contains(e.Entry.Text, "ERR_NETWORK_CHANGED")
			if e.Entry.Level == log.EntryLevelError && !(e.Entry.Source == log.EntrySourceNetwork && (p.calm || strings.Contains(e.Entry.Text, "status of 4"))) {
				p.wrong = append(p.wrong, fmt.Sprintf("the browser says: %s %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
			}
		case *runtime.EventConsoleAPICalled:
			// a stream that breaks is said by htmx as an error
			if e.Type == runtime.ConsoleAPICalledTypeError && !p.calm {
				text := ""
				for _, a := range e.Args {
					text += fmt.Sprint(a.Value, " ", a.Description, " ")
				}
				p.wrong = append(p.wrong, "a script says: "+text)
			}
		}
	}))
	_, err = chromedp.Call(ctx, network.Enable, network.EnableParams{})
	must(t, err)
	_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	must(t, err)
	_, err = chromedp.Call(ctx, runtime.Enable, cdp.Empty{})
	must(t, err)
	t.Cleanup(func() {
		cancel()
		stop()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, w := range p.wrong {
			if !p.disturbed {
				t.Error(w)
			}
		}
		if p.asked == 0 {
			t.Error("no request was seen, so none to other hosts would be")
		}
	})
	return p
}

// tab is another one of the same browser, with the same session.
func (p *person) tab() *person {
	p.t.Helper()
	ctx, stop := chromedp.NewContext(p.ctx)
	p.t.Cleanup(stop)
	must(p.t, chromedp.Do(ctx))
	return &person{t: p.t, b: p.b, ctx: ctx}
}

// run fails the test, with what the page shows, if a step does.
func (p *person) run(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), 5*time.Second)
		defer cancel()
		at, _ := chromedp.Run(ctx, chromedp.Location()) // as much as there is
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.disturbed {
			panic(errDisturbed)
		}
		p.t.Fatalf("%v\nat %s, wrong so far: %q; the page reads:\n%s", err, at, p.wrong, text)
	}
}

func (p *person) visit(path string) { p.t.Helper(); p.run(chromedp.Navigate(p.b.url + path)) }

// signIn opens a page as somebody.
func (p *person) signIn(who, path string) {
	p.t.Helper()
	p.visit(path)
	p.run(chromedp.SendKeys("#token", token(who)), chromedp.Submit("#token"), chromedp.WaitVisible(".who"))
}

// sees waits until an element's text holds something.
func (p *person) sees(selector, text string) {
	p.t.Helper()
	p.awaits(fmt.Sprintf("[...document.querySelectorAll(%q)].some(e => e.checkVisibility() && e.innerText.includes(%q))", selector, text))
}

// misses waits until none of the elements holds something.
func (p *person) misses(selector, text string) {
	p.t.Helper()
	p.awaits(fmt.Sprintf("![...document.querySelectorAll(%q)].some(e => e.checkVisibility() && e.innerText.includes(%q))", selector, text))
}

// awaits waits until an expression is true.
func (p *person) awaits(expression string) {
	p.t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		// in the middle of a navigation there is no document to ask
		if ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](expression)); err == nil && ok {
			return
		}
		if time.Now().After(end) || p.ctx.Err() != nil {
			p.run(chromedp.Func(func(context.Context, *chromedp.Target) error { return errors.New("in vain: " + expression) }))
		}
		time.Sleep(30 * time.Millisecond)
	}
}

func (p *person) truth(expression string) bool {
	p.t.Helper()
	ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](expression))
	must(p.t, err)
	return ok
}

func (p *person) calmly(f func()) {
	p.mu.Lock()
	p.calm = true
	p.mu.Unlock()
	f()
	p.mu.Lock()
	p.calm = false
	p.mu.Unlock()
}

// meddle gives requests whose URL fits a pattern, in which * is anything, to a function that
// answers for the network, until what it returns is called: those that it left then go on. It is
// sure of the requests of pages that are opened later.
func (p *person) meddle(pattern string, answer func(*fetch.EventRequestPaused)) (stop func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.ctx)
	must(p.t, chromedp.Listen(ctx, func(ev any) {
		if e, ok := ev.(*fetch.EventRequestPaused); ok && ctx.Err() == nil {
			go answer(e) // whoever listens must not wait
		}
	}))
	_, err := chromedp.Call(p.ctx, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: pattern}}})
	must(p.t, err)
	return func() {
		p.t.Helper()
		cancel()
		_, err := chromedp.Call(p.ctx, fetch.Disable, cdp.Empty{})
		must(p.t, err)
	}
}

// refused answers as a proxy does whose hub is away.
func (p *person) refused(e *fetch.EventRequestPaused) {
	_, _ = chromedp.Call(p.ctx, fetch.FulfillRequest, fetch.FulfillRequestParams{RequestID: e.RequestID, ResponseCode: 502}) // the test may have ended
}

// held does not answer.
func held(*fetch.EventRequestPaused) {}

// screen is light, dark or narrow.
func (p *person) screen(name string) {
	p.t.Helper()
	scheme, wide, high := "light", int64(1280), int64(900)
	switch name {
	case "dark":
		scheme = "dark"
	case "narrow":
		wide, high = 400, 860
	}
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	must(p.t, err)
	_, err = chromedp.Call(p.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: wide, Height: high, DeviceScaleFactor: 1, Mobile: name == "narrow"})
	must(p.t, err)
}

// shot takes a picture of the whole page, keeps it, and fails if it is one colour or if the
// page is wider than the screen.
func (p *person) shot(name string) {
	p.t.Helper()
	b, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	must(p.t, err)
	must(p.t, os.WriteFile(filepath.Join(p.t.ArtifactDir(), name+".png"), b, 0o644))
	img, err := png.Decode(bytes.NewReader(b))
	must(p.t, err)
	seen := map[[3]uint32]int{}
	bounds := img.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y += 3 {
		for x := bounds.Min.X; x < bounds.Max.X; x += 3 {
			r, g, b, _ := img.At(x, y).RGBA()
			seen[[3]uint32{r, g, b}]++
		}
	}
	if len(seen) < 20 {
		p.t.Errorf("%s shows %d colours only", name, len(seen))
	}
	if !p.truth("document.documentElement.scrollWidth <= document.documentElement.clientWidth") {
		p.t.Errorf("%s is wider than the screen", name)
	}
	r, g, bl, _ := img.At(3, bounds.Dy()-3).RGBA()
	dark := r+g+bl < 3*0x4000
	if want := strings.HasSuffix(name, "dark"); dark != want {
		p.t.Errorf("%s: the ground is %x %x %x", name, r>>8, g>>8, bl>>8)
	}
}

// press presses a button, or follows a link, by key. The mouse can miss one: a page moves when its
// live parts come.
func press[S chromedp.Selectable](sel S) chromedp.Action[chromedp.Void] {
	return chromedp.SendKeys(sel, kb.Enter)
}
