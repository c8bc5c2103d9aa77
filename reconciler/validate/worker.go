package validate

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"selvedge/schema/fleet"
)

// Worker runs the evaluator and exits, if this process was started as one. Call it
// first thing in main, and in TestMain: a Validator starts its own executable again.
func Worker() {
	if len(os.Args) != 4 || os.Args[1] != childMagic {
		return
	}
	if err := work(os.Args[2], os.Args[3]); !errors.Is(err, io.EOF) { // the parent has no more work
		fmt.Fprintln(os.Stderr, "evaluator:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// work answers jobs until reading or writing fails.
func work(memory, cpu string) error {
	mem, err := strconv.ParseInt(memory, 10, 64)
	if err != nil {
		return err
	}
	life, err := strconv.ParseInt(cpu, 10, 64)
	if err != nil {
		return err
	}
	if err := capCPU((time.Duration(life) + time.Second) * (unitsALife + 1)); err != nil {
		return err
	}
	if err := confine(mem); err != nil {
		return err
	}
	in, out := bufio.NewReaderSize(os.Stdin, 64<<10), os.Stdout
	for {
		kind, body, err := readFrame(in, 64<<20)
		if err != nil {
			return err
		}
		if kind != frameJob {
			return fmt.Errorf("frame of kind %d instead of a job", kind)
		}
		var j job
		if err := json.Unmarshal(body, &j); err != nil {
			return fmt.Errorf("job: %w", err)
		}
		if err := renewCPU(time.Duration(j.CPU)); err != nil {
			return err
		}
		res := evaluateSafely(j, newAskFS(in, out))
		payload, err := json.Marshal(res)
		if err != nil {
			return fmt.Errorf("result: %w", err)
		}
		if err := writeFrame(out, frameResult, payload); err != nil {
			return err
		}
		runtime.GC() // now, and not within the next unit: that somebody waits for
	}
}

// evaluateSafely makes a panic of the CUE library a problem of the one unit.
func evaluateSafely(j job, fsys *askFS) (res *result) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(os.Stderr, "panic: %v\n%s", r, debug.Stack())
			res = &result{Role: roleUnknown, Problems: []fleet.Problem{{
				Severity: fleet.Error, Position: fleet.Position{File: filePath(j.Dir)},
				Message: fmt.Sprintf("the CUE evaluator failed: %v; simplify what changed last", r),
			}}}
		}
	}()
	return evaluate(j, fsys)
}
