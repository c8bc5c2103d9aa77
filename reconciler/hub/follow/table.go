package follow

import (
	"hash/maphash"
	"maps"
)

// table is a map that never changes: with makes another one, which shares all but the parts
// that differ. A change of one entry among 10,000 copies some forty.
type table[V any] struct {
	shards *[tableShards]map[string]V // nil: empty
	len    int
}

const tableShards = 256

var tableSeed = maphash.MakeSeed()

func shardOf(key string) int { return int(maphash.String(tableSeed, key) % tableShards) }

func (t table[V]) get(key string) (v V, ok bool) {
	if t.shards == nil {
		return v, false
	}
	v, ok = t.shards[shardOf(key)][key]
	return v, ok
}

// editor collects changes to a table.
type editor[V any] struct {
	shards [tableShards]map[string]V
	own    [tableShards]bool // this one's copies
	len    int
}

func (t table[V]) edit() *editor[V] {
	e := &editor[V]{len: t.len}
	if t.shards != nil {
		e.shards = *t.shards
	}
	return e
}

func (e *editor[V]) shard(key string) map[string]V {
	i := shardOf(key)
	if !e.own[i] {
		if e.shards[i] == nil {
			e.shards[i] = map[string]V{}
		} else {
			e.shards[i] = maps.Clone(e.shards[i])
		}
		e.own[i] = true
	}
	return e.shards[i]
}

func (e *editor[V]) get(key string) (V, bool) {
	v, ok := e.shards[shardOf(key)][key]
	return v, ok
}

func (e *editor[V]) set(key string, v V) {
	s := e.shard(key)
	if _, had := s[key]; !had {
		e.len++
	}
	s[key] = v
}

func (e *editor[V]) remove(key string) {
	if _, had := e.get(key); had {
		delete(e.shard(key), key)
		e.len--
	}
}

// table returns the result; the editor is not used any more.
func (e *editor[V]) table() table[V] { return table[V]{&e.shards, e.len} }
