// Command shell is what tests run in containers. Its arguments say what it does.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	arg := func(n int) string {
		if n < len(os.Args) {
			return os.Args[n]
		}
		return ""
	}
	switch arg(1) {
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "say": // OUT ERR CODE
		fmt.Print(arg(2))
		fmt.Fprint(os.Stderr, arg(3))
		code, _ := strconv.Atoi(arg(4))
		os.Exit(code)
	case "env":
		fmt.Println(os.Getuid(), strings.Join(os.Environ(), " "))
	case "terminal": // tells its size, and each new one, until a line comes
		winch := make(chan os.Signal, 8)
		signal.Notify(winch, syscall.SIGWINCH)
		tell := func() {
			w, h, err := term.GetSize(0)
			fmt.Println("size", h, w, err)
		}
		tell()
		go func() {
			for range winch {
				tell()
			}
		}()
		var line string
		_, _ = fmt.Scanln(&line)
		fmt.Println("read", line)
		os.Exit(7)
	case "child": // starts one that holds the output, and goes
		c := exec.Command("/hello", "idle", arg(2))
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("left it")
		if arg(3) == "stay" {
			_ = c.Wait()
		}
	case "idle":
		fmt.Println("idles")
		time.Sleep(time.Hour)
	case "line": // one of N bytes without an end
		n, _ := strconv.Atoi(arg(2))
		b := []byte(strings.Repeat("x", 64<<10))
		for n > 0 {
			m, _ := os.Stdout.Write(b[:min(n, len(b))])
			n -= m
		}
		time.Sleep(time.Hour)
	case "count": // lines 1 to N as fast as it can, then stays
		n, _ := strconv.Atoi(arg(2))
		var b strings.Builder
		for i := 1; i <= n; i++ {
			fmt.Fprintf(&b, "line %d \x1b[31mred\x1b[0m \"quoted\" <&> é\n", i)
			if b.Len() > 32<<10 {
				fmt.Print(b.String())
				b.Reset()
			}
		}
		fmt.Print(b.String())
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM)
		<-end
		fmt.Println("stops")
	case "exit":
		fmt.Println("run ends")
		code, _ := strconv.Atoi(arg(2))
		os.Exit(code)
	}
}
