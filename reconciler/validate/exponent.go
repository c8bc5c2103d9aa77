package validate

import (
	"strconv"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/token"

	"selvedge/schema/fleet"
)

// CUE takes a number whose exponent is beyond its range for one without an exponent:
// 1e999999999 is 1, in silence. No value of a state needs any that a double cannot hold.
const maxExponent = 400

func beyondExponent(number string) bool {
	i := strings.IndexAny(number, "eE")
	if i < 0 || strings.HasPrefix(number, "0x") || strings.HasPrefix(number, "0X") {
		return false
	}
	e, err := strconv.Atoi(strings.ReplaceAll(strings.TrimPrefix(number[i+1:], "+"), "_", ""))
	return err != nil && len(number[i+1:]) > 4 || e > maxExponent || e < -maxExponent
}

func (u *unit) exponents(f *ast.File) {
	ast.Walk(f, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && (l.Kind == token.FLOAT || l.Kind == token.INT) && beyondExponent(l.Value) {
			u.exponent(u.position(l.Pos()), l.Value)
		}
		return true
	}, nil)
}

func (u *unit) exponent(pos fleet.Position, number string) {
	u.say(pos, "%s is beyond what a number can hold; write one with a smaller exponent", short(number))
}
