package show

import "io"

// Filter returns a writer that passes on text, tabs, ends of lines and colours, and leaves out
// every other control character and escape sequence. Sequences may come in pieces.
func Filter(w io.Writer) io.Writer { return &filter{w: w} }

type filter struct {
	w     io.Writer
	state state
	seq   []byte // a sequence that may turn out to be a colour
	out   []byte
	utf8  int  // bytes that are still to come of a character
	c2    bool // the last byte was 0xc2: C1 controls may follow
}

type state int

const (
	plain     state = iota
	escape          // after ESC
	csi             // after ESC [
	str             // in a string that BEL or ESC \ ends: titles, links, the clipboard
	strEscape       // in it, after ESC
	charset         // one more byte belongs to it
)

// maxSequence bounds a colour; longer sequences are left out.
const maxSequence = 64

func (f *filter) Write(p []byte) (int, error) {
	f.out = f.out[:0]
	for _, b := range p {
		f.step(b)
	}
	if len(f.out) > 0 {
		if _, err := f.w.Write(f.out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (f *filter) step(b byte) {
	switch f.state {
	case plain:
		f.text(b)
	case escape:
		switch {
		case b == '[':
			f.state, f.seq = csi, append(f.seq[:0], 0x1b, '[')
		case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
			f.state = str
		case b >= 0x20 && b <= 0x2f:
			f.state = charset
		case b == 0x1b:
		default:
			f.end(b)
		}
	case csi:
		switch {
		case b >= 0x20 && b <= 0x3f:
			if len(f.seq) <= maxSequence {
				f.seq = append(f.seq, b)
			}
		case b == 'm' && len(f.seq) <= maxSequence && digits(f.seq[2:]):
			f.out = append(append(f.out, f.seq...), b)
			f.state = plain
		case b == 0x1b:
			f.state = escape
		default:
			f.end(b)
		}
	case str:
		switch b {
		case 0x07, 0x18, 0x1a, '\n':
			f.end(b)
		case 0x1b:
			f.state = strEscape
		}
	case strEscape:
		f.state = str
		if b == '\\' {
			f.state = plain
		} else if b != 0x1b {
			f.state = escape
			f.step(b)
		} else {
			f.state = strEscape
		}
	case charset:
		if b < 0x20 || b > 0x2f {
			f.end(b)
		}
	}
}

// end ends a sequence. The end of a line does so, too, and stays: a sequence that is never
// ended must not swallow the rest of a log.
func (f *filter) end(b byte) {
	f.state = plain
	if b == '\n' {
		f.out = append(f.out, b)
	}
}

func (f *filter) text(b byte) {
	if f.c2 {
		f.c2 = false
		if b >= 0x80 && b <= 0x9f { // C1: some terminals take 0x9b for ESC [
			return
		}
		f.out = append(f.out, 0xc2)
		if b >= 0xa0 && b <= 0xbf {
			f.out = append(f.out, b)
			return
		}
	}
	if f.utf8 > 0 && b >= 0x80 && b <= 0xbf {
		f.utf8--
		f.out = append(f.out, b)
		return
	}
	f.utf8 = 0
	switch {
	case b == 0x1b:
		f.state = escape
	case b == 0xc2:
		f.c2 = true
	case b >= 0xc3 && b <= 0xdf:
		f.utf8 = 1
		f.out = append(f.out, b)
	case b >= 0xe0 && b <= 0xef:
		f.utf8 = 2
		f.out = append(f.out, b)
	case b >= 0xf0 && b <= 0xf4:
		f.utf8 = 3
		f.out = append(f.out, b)
	case b >= 0x80: // no UTF-8
	case b == '\n' || b == '\t' || b >= 0x20 && b != 0x7f:
		f.out = append(f.out, b)
	}
}

// digits reports whether the parameters of a sequence are numbers, as those of a colour.
func digits(p []byte) bool {
	for _, b := range p {
		if (b < '0' || b > '9') && b != ';' && b != ':' {
			return false
		}
	}
	return true
}
