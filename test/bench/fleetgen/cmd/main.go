// Command cmd writes a config repo of N nodes for benchmarks.
package main

import (
	"flag"
	"fmt"
	"os"

	"selvedge/test/bench/fleetgen"
)

func main() {
	n := flag.Int("n", 1000, "how many nodes")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: fleetgen [-n NODES] FOLDER")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := fleetgen.Write(flag.Arg(0), *n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
