package validate

import (
	"bytes"
	"testing"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	big := bytes.Repeat([]byte("x"), 3<<20)
	if err := writeFrame(&b, frameAnswer, []byte{answerOK}, big); err != nil {
		t.Fatal(err)
	}
	if err := writeFrame(&b, frameList, []byte(".")); err != nil {
		t.Fatal(err)
	}
	k, p, err := readFrame(&b, 4<<20)
	if err != nil || k != frameAnswer || len(p) != len(big)+1 {
		t.Fatal(k, len(p), err)
	}
	k, p, err = readFrame(&b, 4<<20)
	if err != nil || k != frameList || string(p) != "." {
		t.Fatal(k, string(p), err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 3, 'a'})
	f.Add([]byte{255, 255, 255, 255, 5})
	f.Add([]byte{0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		k, p, err := readFrame(bytes.NewReader(in), 1<<16)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeFrame(&out, k, p); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(in, out.Bytes()) {
			t.Fatalf("%x becomes %x", in, out.Bytes())
		}
	})
}
