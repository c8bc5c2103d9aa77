package nodestate

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Canonical returns the canonical bytes of the state: JSON by RFC 8785, with empty
// fields omitted. It refuses what Decode would refuse, so that nothing is signed
// that no node accepts.
func (s *State) Canonical() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return bounded(s.append(nil))
}

// Canonical returns the canonical bytes of the app, for Join.
func (a *App) Canonical() ([]byte, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	return bounded(a.Append(nil))
}

// Join returns the canonical bytes of the state as if it held the apps that are
// given in canonical form, sorted by name: an app that is the same on many nodes is
// made canonical once. Apps of the state itself are not read. The bytes are appended
// to dst. The caller keeps order and bounds; CheckHeader looks after the rest.
func (s *State) Join(dst []byte, apps [][]byte) []byte {
	return s.frame(dst, len(apps), func(b []byte, i int) []byte { return append(b, apps[i]...) })
}

func (s *State) append(dst []byte) []byte {
	return s.frame(dst, len(s.Apps), func(b []byte, i int) []byte { return s.Apps[i].Append(b) })
}

// frame writes the members of the state around its apps; here and below members come
// in the order of RFC 8785, which for these names is that of their bytes.
func (s *State) frame(b []byte, apps int, app func([]byte, int) []byte) []byte {
	b = str(key(append(b, '{'), "apiVersion"), s.APIVersion)
	if apps > 0 {
		b = append(key(b, "apps"), '[')
		for i := range apps {
			b = app(next(b), i)
		}
		b = append(b, ']')
	}
	b = number(key(b, "engine"), int64(s.Engine))
	b = str(key(append(key(b, "identity"), '{'), "publicKey"), s.Identity.PublicKey)
	b = append(b, '}')
	b = str(key(b, "node"), s.Node)
	if s.Remote != (Remote{}) {
		b = append(key(b, "remote"), '{')
		b = optBool(b, "exec", s.Remote.Exec)
		b = optBool(b, "logs", s.Remote.Logs)
		b = optBool(b, "restart", s.Remote.Restart)
		b = optBool(b, "write", s.Remote.Write)
		b = append(b, '}')
	}
	b = str(key(b, "workspace"), s.Workspace)
	return append(b, '}')
}

// Append appends the canonical bytes of an app that was checked before.
func (a *App) Append(b []byte) []byte {
	b = append(key(append(b, '{'), "containers"), '[')
	for i := range a.Containers {
		b = a.Containers[i].append(next(b))
	}
	b = append(b, ']')
	b = number(key(b, "deadlineMs"), a.DeadlineMS)
	b = str(key(b, "name"), a.Name)
	b = optNumber(b, "ordered", int64(a.Ordered))
	return append(b, '}')
}

func (c *Container) append(b []byte) []byte {
	b = optStrs(append(b, '{'), "args", c.Args)
	b = optStrs(b, "command", c.Command)
	b = optStr(b, "cpuset", c.CPUSet)
	if len(c.Env) > 0 {
		b = append(key(b, "env"), '{')
		for _, name := range slices.Sorted(maps.Keys(c.Env)) { // names are ASCII: checked
			b = str(key(b, name), c.Env[name])
		}
		b = append(b, '}')
	}
	if len(c.Files) > 0 {
		b = append(key(b, "files"), '[')
		for _, f := range c.Files {
			b = str(key(append(next(b), '{'), "content"), f.Content)
			b = append(str(key(b, "path"), f.Path), '}')
		}
		b = append(b, ']')
	}
	b = str(key(b, "image"), c.Image)
	b = number(key(b, "logBytes"), c.LogBytes)
	b = number(key(b, "logFiles"), int64(c.LogFiles))
	b = optNumber(b, "memory", c.Memory)
	b = optNumber(b, "milliCpu", c.MilliCPU)
	if len(c.Mounts) > 0 {
		b = append(key(b, "mounts"), '[')
		for _, m := range c.Mounts {
			b = str(key(append(next(b), '{'), "host"), m.Host)
			b = str(key(b, "path"), m.Path)
			b = append(optBool(b, "readOnly", m.ReadOnly), '}')
		}
		b = append(b, ']')
	}
	b = str(key(b, "name"), c.Name)
	b = str(key(b, "network"), c.Network)
	b = optNumber(b, "pids", c.PIDs)
	if len(c.Ports) > 0 {
		b = append(key(b, "ports"), '[')
		for _, p := range c.Ports {
			b = p.append(next(b))
		}
		b = append(b, ']')
	}
	b = optBool(b, "privileged", c.Privileged)
	if c.Probe != nil {
		b = c.Probe.append(key(b, "probe"))
	}
	b = optBool(b, "readOnly", c.ReadOnly)
	b = str(key(b, "restart"), c.Restart)
	b = number(key(b, "stopMs"), c.StopMS)
	b = str(key(b, "stopSignal"), c.StopSignal)
	return append(optStr(b, "user", c.User), '}')
}

func (p *Port) append(b []byte) []byte {
	b = str(key(append(b, '{'), "address"), p.Address)
	b = number(key(b, "container"), int64(p.Container))
	b = number(key(b, "host"), int64(p.Host))
	b = str(key(b, "name"), p.Name)
	return append(str(key(b, "protocol"), p.Protocol), '}')
}

func (p *Probe) append(b []byte) []byte {
	b = append(b, '{')
	if p.Exec != nil {
		b = append(key(append(key(b, "exec"), '{'), "command"), '[')
		for _, v := range p.Exec.Command {
			b = str(next(b), v)
		}
		b = append(b, "]}"...)
	}
	b = number(key(b, "failures"), int64(p.Failures))
	if p.HTTP != nil {
		b = str(key(append(key(b, "http"), '{'), "path"), p.HTTP.Path)
		b = append(number(key(b, "port"), int64(p.HTTP.Port)), '}')
	}
	b = number(key(b, "intervalMs"), p.IntervalMS)
	if p.TCP != nil {
		b = append(number(key(append(key(b, "tcp"), '{'), "port"), int64(p.TCP.Port)), '}')
	}
	return append(number(key(b, "timeoutMs"), p.TimeoutMS), '}')
}

// next puts a comma before all elements but the first of a list or object.
func next(b []byte) []byte {
	if c := b[len(b)-1]; c != '{' && c != '[' {
		b = append(b, ',')
	}
	return b
}

func key(b []byte, name string) []byte {
	b = append(next(b), '"')
	b = append(b, name...)
	return append(b, `":`...)
}

func number(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

func optNumber(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	return number(key(b, name), n)
}

func optBool(b []byte, name string, v bool) []byte {
	if !v {
		return b
	}
	return append(key(b, name), "true"...)
}

func optStr(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return str(key(b, name), s)
}

func optStrs(b []byte, name string, list []string) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(key(b, name), '[')
	for _, v := range list {
		b = str(next(b), v)
	}
	return append(b, ']')
}

// str writes a string by section 3.2.2.2 of RFC 8785: nothing is escaped that need not be.
func str(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\t':
			b = append(b, `\t`...)
		case '\n':
			b = append(b, `\n`...)
		case '\f':
			b = append(b, `\f`...)
		case '\r':
			b = append(b, `\r`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&15])
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func bounded(b []byte) ([]byte, error) {
	if len(b) > MaxStateSize {
		return nil, fmt.Errorf("%d bytes; at most %d are allowed", len(b), MaxStateSize)
	}
	return b, nil
}

// NextGeneration returns the generation of a state that replaces one of generation
// previous: Unix seconds, so that it keeps growing when all records of earlier ones are
// lost, and above previous, whatever the clock says.
func NextGeneration(previous int64, now time.Time) int64 {
	return max(previous+1, now.Unix())
}
