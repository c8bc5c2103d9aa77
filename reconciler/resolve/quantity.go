package resolve

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"selvedge/schema/nodestate"
)

// units are the multipliers of quantities; the longer names come first.
var units = []struct {
	name string
	n    int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"k", 1e3}, {"M", 1e6}, {"G", 1e9},
}

// bytesOf returns a quantity such as 64MiB in bytes; empty is 0.
func bytesOf(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits, unit := s, int64(1)
	for _, u := range units {
		if d, ok := strings.CutSuffix(s, u.name); ok {
			digits, unit = d, u.n
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a quantity such as 65536, 64MiB or 4G", clip(s))
	}
	if int64(n) > nodestate.MaxBytes/unit {
		return 0, fmt.Errorf("%s is more than 1024TiB", clip(s))
	}
	return int64(n) * unit, nil
}

// milli returns cores in thousandths; 0 is no limit.
func milli(cores float64) (int64, error) {
	m := math.Round(cores * 1000)
	switch {
	case cores == 0:
		return 0, nil
	case !(m >= 1): // NaN too
		return 0, fmt.Errorf("%v cores; the least is 0.001", cores)
	case m > nodestate.MaxMilliCPU:
		return 0, fmt.Errorf("%v cores; the most are %d", cores, nodestate.MaxMilliCPU/1000)
	}
	return int64(m), nil
}

// millis returns a duration such as 1m30s in milliseconds.
func millis(s string) (int64, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d%time.Millisecond != 0 {
		return 0, fmt.Errorf("%q is not a time of whole milliseconds such as 500ms or 1m30s", clip(s))
	}
	if d.Milliseconds() > nodestate.MaxDurationMS {
		return 0, fmt.Errorf("%s is more than a week (168h)", s)
	}
	return d.Milliseconds(), nil
}

// size writes bytes for people.
func size(n int64) string {
	for _, u := range []struct {
		name string
		n    int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.n {
			return strconv.FormatFloat(math.Round(float64(n)/float64(u.n)*100)/100, 'f', -1, 64) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func cores(milli int64) string { return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64) }
