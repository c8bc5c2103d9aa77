package validate

import "selvedge/schema/fleet"

func (u *unit) merged(fu *fleet.Unit) {}
