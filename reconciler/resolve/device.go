package resolve

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"selvedge/schema/fleet"
)

// writer is a property that may be written to registers.
type writer struct {
	property    string
	table       string
	first, last int
	bit         int // -1: all of them
}

func (w writer) overlaps(o writer) bool {
	return w.table == o.table && w.first <= o.last && o.first <= w.last && (w.bit < 0 || o.bit < 0 || w.bit == o.bit)
}

func (w writer) String() string {
	if w.bit >= 0 {
		return fmt.Sprintf("bit %d of %s register %d", w.bit, w.table, w.first)
	}
	if w.first == w.last {
		return fmt.Sprintf("%s %d", w.table, w.first)
	}
	return fmt.Sprintf("%s %d–%d", w.table, w.first, w.last)
}

// writers returns what can be written of a device model, sorted by property.
func writers(m fleet.DeviceModel) []writer {
	var out []writer
	for _, name := range slices.Sorted(maps.Keys(m.Property)) {
		p := m.Property[name]
		if p.Modbus == nil || !strings.Contains(p.Access, "w") {
			continue
		}
		w := writer{property: name, table: p.Modbus.Table, first: p.Modbus.Address, last: p.Modbus.Address, bit: -1}
		if p.Modbus.Bit != nil {
			w.bit = *p.Modbus.Bit
		} else if p.Modbus.Table == "holding" {
			w.last += registers(p.Type) - 1
		}
		out = append(out, w)
	}
	return out
}

func registers(kind string) int {
	switch {
	case strings.HasSuffix(kind, "64"):
		return 4
	case strings.HasSuffix(kind, "32"):
		return 2
	}
	return 1
}

// checkDevices finds devices without a node or model, and registers with two writers.
func (r *renderer) checkDevices() {
	models := map[string][]writer{}
	groups := map[string][]string{} // devices by what they are reached by
	for _, name := range slices.Sorted(maps.Keys(r.unit.Device)) {
		d := r.unit.Device[name]
		r.nodesNamed("device", name, "node", []string{d.Node})
		m, ok := r.unit.DeviceModel[d.Model]
		if !ok {
			r.unknown("device", name, "deviceModel", d.Model)
			continue
		}
		if _, done := models[d.Model]; !done {
			ws := writers(m)
			models[d.Model] = ws
			r.checkModel(d.Model, ws)
		}
		for _, p := range slices.Sorted(maps.Keys(d.Desired)) {
			prop, ok := m.Property[p]
			switch {
			case !ok:
				r.errorf("device", name, "", "desired: device model %q has no property %q; it has %s", d.Model, p, quoted(m.Property))
			case !strings.Contains(prop.Access, "w"):
				r.errorf("device", name, "", "desired: property %q of device model %q is only read; remove it here, or set its access to rw", p, d.Model)
			}
		}
		if d.Modbus != nil && len(models[d.Model]) > 0 {
			at := d.Node + " " + line(d.Modbus)
			groups[at] = append(groups[at], name)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(groups)) {
		r.checkLine(groups[at], models)
	}
}

// checkLine finds registers that two devices of one bus and unit write: one finding a
// device.
func (r *renderer) checkLine(devices []string, models map[string][]writer) {
	type register struct {
		table string
		n     int
	}
	type taken struct {
		device string
		writer
	}
	all := map[register][]taken{}
device:
	for _, name := range devices {
		d := r.unit.Device[name]
		ws := models[d.Model]
		for _, w := range ws {
			for n := w.first; n <= w.last; n++ {
				for _, t := range all[register{w.table, n}] {
					if t.overlaps(w) {
						r.errorf("device", name, "", "property %q writes %s of %s, and so does property %q of device %q; let one of them write it",
							w.property, w, line(d.Modbus), t.property, t.device)
						continue device
					}
				}
			}
		}
		for _, w := range ws {
			for n := w.first; n <= w.last; n++ {
				k := register{w.table, n}
				all[k] = append(all[k], taken{name, w})
			}
		}
	}
}

// checkModel finds two properties of a model that write one register.
func (r *renderer) checkModel(name string, ws []writer) {
	sorted := slices.Clone(ws)
	slices.SortStableFunc(sorted, func(a, b writer) int { return a.first - b.first })
	for i, w := range sorted {
		for _, o := range sorted[i+1:] {
			if o.first > w.last {
				break
			}
			if w.overlaps(o) {
				r.errorf("deviceModel", name, "", "properties %q and %q both write %s; let one of them write it", w.property, o.property, o)
				break
			}
		}
	}
}

// line names the bus and unit that a device is reached by.
func line(m *fleet.ModbusEndpoint) string {
	at := "tcp " + strings.ToLower(m.TCP)
	if m.RTU != nil {
		at = "rtu " + m.RTU.Port
	}
	return fmt.Sprintf("unit %d at %s", m.Unit, at)
}
