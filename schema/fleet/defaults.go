package fleet

import "cmp"

// fill gives the parts that an override added to a container the defaults that the
// schema gives to those that it declares. A test holds them against the schema.
func (c *Container) fill() {
	for name, p := range c.Port {
		p.Protocol = cmp.Or(p.Protocol, "tcp")
		p.Address = cmp.Or(p.Address, "0.0.0.0")
		c.Port[name] = p
	}
	if p := c.Probe; p != nil {
		p.Interval = cmp.Or(p.Interval, "5s")
		p.Timeout = cmp.Or(p.Timeout, "2s")
		p.Failures = cmp.Or(p.Failures, 3)
		if p.HTTP != nil {
			p.HTTP.Path = cmp.Or(p.HTTP.Path, "/")
		}
	}
}
