package logfile

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// The log driver writes {"log":"text\n","stream":"stdout","time":"RFC 3339"}, one a line.
var (
	jsonStart  = []byte(`{"log":"`)
	jsonStream = []byte(`,"stream":"std`)
	jsonTime   = []byte(`","time":"`)
	jsonEnd    = []byte(`"}`)
)

// JSONFile is the Format of the json-file driver of container engines. It reads the one form that is written,
// much faster than a JSON decoder, which gets what looks otherwise.
func JSONFile(dst, line []byte, o Options) []byte {
	text, stamp, ok := split(line)
	if !ok {
		var e struct{ Log, Time string }
		if json.Unmarshal(line, &e) != nil {
			// a disk that was full left half a line, and the next one came behind it
			if n := bytes.LastIndex(line, jsonStart); n > 0 {
				return JSONFile(dst, line[n:], o)
			}
			return dst
		}
		if dst, ok = head(dst, []byte(e.Time), o); !ok || e.Log == "" {
			return dst
		}
		return ended(append(dst, e.Log...))
	}
	was := len(dst)
	if dst, ok = head(dst, stamp, o); !ok {
		return dst
	}
	if dst, ok = unquote(dst, text); !ok {
		return dst[:was]
	}
	return ended(dst)
}

func ended(dst []byte) []byte {
	if len(dst) > 0 && dst[len(dst)-1] != '\n' {
		return append(dst, '\n')
	}
	return dst
}

// head appends the time if it is wanted; false says that the line is too old.
func head(dst, stamp []byte, o Options) ([]byte, bool) {
	if o.Since.IsZero() && !o.Timestamps {
		return dst, true
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil || t.Before(o.Since) {
		return dst, false
	}
	if o.Timestamps {
		dst = append(t.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000000Z07:00"), ' ')
	}
	return dst, true
}

// split returns the text, still quoted, and the time.
func split(line []byte) (text, stamp []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, jsonStart)
	if !ok {
		return nil, nil, false
	}
	end := 0
	for {
		n := bytes.IndexByte(rest[end:], '"')
		if n < 0 {
			return nil, nil, false
		}
		end += n
		slashes := 0
		for slashes < end && rest[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			break
		}
		end++
	}
	text, rest = rest[:end], rest[end+1:]
	if rest, ok = bytes.CutPrefix(rest, jsonStream); !ok {
		return nil, nil, false
	}
	if _, rest, ok = bytes.Cut(rest, jsonTime); !ok {
		return nil, nil, false
	}
	stamp, ok = bytes.CutSuffix(rest, jsonEnd)
	ok = ok && bytes.IndexByte(stamp, '"') < 0
	return text, stamp, ok
}

// plainEscapes are those of RFC 8259 section 7 that stand for one byte.
var plainEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unquote appends what a JSON string stands for.
func unquote(dst, s []byte) ([]byte, bool) {
	for {
		n := bytes.IndexByte(s, '\\')
		if n < 0 {
			return append(dst, s...), true
		}
		dst = append(dst, s[:n]...)
		if s = s[n+1:]; len(s) == 0 {
			return dst, false
		}
		if c := plainEscapes[s[0]]; c != 0 {
			dst, s = append(dst, c), s[1:]
			continue
		}
		r, ok := hex4(s)
		if !ok {
			return dst, false
		}
		if s = s[5:]; utf16.IsSurrogate(r) {
			low, ok := rune(0), false
			if len(s) > 0 && s[0] == '\\' {
				low, ok = hex4(s[1:])
			}
			if r = utf16.DecodeRune(r, low); ok && r != utf8.RuneError {
				s = s[6:]
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
}

// hex4 reads u and four digits.
func hex4(s []byte) (rune, bool) {
	if len(s) < 5 || s[0] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range s[1:5] {
		r <<= 4
		switch {
		case '0' <= c && c <= '9':
			r |= rune(c - '0')
		case 'a' <= c && c <= 'f':
			r |= rune(c-'a') + 10
		case 'A' <= c && c <= 'F':
			r |= rune(c-'A') + 10
		default:
			return 0, false
		}
	}
	return r, true
}
