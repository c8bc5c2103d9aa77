// Command tool is the app of the tests through a hub: it serves /healthz, prints a line now and
// then, uses some of a processor, and does small things for those who run it in its container.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		serve()
		return
	}
	switch os.Args[1] {
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "exit":
		code, _ := strconv.Atoi(os.Args[2])
		fmt.Fprintln(os.Stderr, "told to fail")
		os.Exit(code)
	case "wait": // until it is killed
		fmt.Println("waiting")
		time.Sleep(time.Hour)
	}
}

func serve() {
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	go func() {
		fmt.Println(http.ListenAndServe(":8080", nil))
		os.Exit(1)
	}()
	began := time.Now().UnixNano()
	for n := 0; ; n++ {
		fmt.Println("run", began, "line", n)
		for end := time.Now().Add(10 * time.Millisecond); time.Now().Before(end); {
		}
		time.Sleep(190 * time.Millisecond)
	}
}
