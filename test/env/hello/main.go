// Command hello is the app that the demo and the tests run: a small static web
// server that can be told to misbehave.
//
// Environment: PORT (8080), VERSION, GREETING, CONFIG (a file to show), FAIL: exit
// (at once, code 3), unhealthy (/healthz answers 503), hang (never listens), deaf
// (ignores SIGTERM), crash-after=2s, ready-after=2s, flood (prints without end).
//
// Paths: / greets, /healthz, /env lists the environment, /config shows CONFIG.
// As "hello check" it asks /healthz of the server beside it: an exec probe.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "check" {
		os.Exit(check())
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func port() string {
	if p := os.Getenv("PORT"); p != "" {
		return p
	}
	return "8080"
}

func check() int {
	res, err := http.Get("http://127.0.0.1:" + port() + "/healthz")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		fmt.Println(res.Status)
		return 1
	}
	return 0
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	fail, arg, _ := strings.Cut(os.Getenv("FAIL"), "=")
	d, _ := time.ParseDuration(arg) // none: 0
	begun := time.Now()
	switch fail {
	case "exit":
		fmt.Println("told to fail: no such database")
		os.Exit(3)
	case "hang":
		<-ctx.Done()
		return nil
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		ctx = context.Background()
	case "crash-after":
		time.AfterFunc(d, func() { fmt.Println("told to crash"); os.Exit(2) })
	case "flood":
		go func() {
			line := strings.Repeat("x", 200)
			for n := 0; ; n++ {
				fmt.Println(n, line)
			}
		}()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello %s, this is version %s\n", greeting(), os.Getenv("VERSION"))
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if fail == "unhealthy" || fail == "ready-after" && time.Since(begun) < d {
			http.Error(w, "told to be unhealthy", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) {
		env := os.Environ()
		slices.Sort(env)
		for _, e := range env {
			fmt.Fprintln(w, e)
		}
	})
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, os.Getenv("CONFIG"))
	})
	srv := &http.Server{Addr: ":" + port(), Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.ListenAndServe() }()
	fmt.Printf("version %s listens on port %s as user %d\n", os.Getenv("VERSION"), port(), os.Getuid())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
			fmt.Println("still here") // a broken log pipe would end us by SIGPIPE
		case <-ctx.Done():
			fmt.Println("stops")
			bound, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := srv.Shutdown(bound); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return nil
		}
	}
}

func greeting() string {
	if g := os.Getenv("GREETING"); g != "" {
		return g
	}
	return "world"
}
