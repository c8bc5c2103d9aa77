package containerd

import (
	"context"
	"sync"
	"time"

	client "github.com/containerd/containerd/v2/client"
)

// How often and how long containerd counts what a container wrote: it walks over every file.
const (
	layerEvery = 5 * time.Minute
	layerLater = time.Hour // after it took too long
	layerBound = time.Second
	layerRest  = 20 // times as long as the last one took nothing else is counted
)

// layers remember the sizes of containers' own layers.
type layers struct {
	mu   sync.Mutex
	of   map[string]layer
	rest time.Time // until then nothing is counted
}

type layer struct {
	size int64
	due  time.Time // to be counted again
}

// size returns the bytes that a container wrote to its own layer, as last counted; 0 if they were
// not yet, or are too many files to count.
func (l *layers) size(ctx context.Context, c *client.Client, id string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, was := time.Now(), l.of[id]
	if now.Before(was.due) || now.Before(l.rest) {
		return was.size
	}
	if l.of == nil || len(l.of) >= maxSamples {
		l.of = map[string]layer{}
	}
	ctx, cancel := context.WithTimeout(ctx, layerBound)
	defer cancel()
	was.due = now.Add(layerLater)
	if x, err := c.ContainerService().Get(ctx, id); err == nil {
		if u, err := c.SnapshotService(x.Snapshotter).Usage(ctx, x.SnapshotKey); err == nil {
			was = layer{u.Size, now.Add(layerEvery)}
		}
	}
	l.of[id] = was
	l.rest = time.Now().Add(layerRest * time.Since(now))
	return was.size
}
