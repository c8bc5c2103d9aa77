//go:build !race

package fleet

const patience = 1
