package validate

func (u *unit) sealed(values map[string]any) {}
