package nodestate_test

import (
	"reflect"
	"testing"

	"selvedge/schema/nodestate"
)

// Every right, those to come too, takes both.
func TestBothGrant(t *testing.T) {
	var none, all nodestate.Remote
	v := reflect.ValueOf(&all).Elem()
	for i := range v.NumField() {
		v.Field(i).SetBool(true)
	}
	for i := range v.NumField() {
		var one nodestate.Remote
		reflect.ValueOf(&one).Elem().Field(i).SetBool(true)
		if all.And(one) != one || one.And(all) != one || one.And(none) != none || none.And(one) != none {
			t.Errorf("%s: %+v, %+v", v.Type().Field(i).Name, all.And(one), one.And(none))
		}
	}
}
