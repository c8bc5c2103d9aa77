package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"selvedge/schema/nodestate"
)

// trustFrom returns what fetches the root documents from the store of states, which inlines
// them. Nodes judge them; the hub only passes them on.
func trustFrom(transport http.RoundTripper, base *url.URL, prefix func() string) func(context.Context) ([][]byte, error) {
	return func(ctx context.Context) ([][]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		u := base.JoinPath("v2", nodestate.TrustRepository(prefix()), "manifests", nodestate.TagTrust)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", nodestate.MediaTypeManifest)
		res, err := transport.RoundTrip(req) // no client: credentials must not follow a redirect
		if err != nil {
			return nil, fmt.Errorf("root documents: %w", err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("root documents: the store of states answers %s", res.Status)
		}
		b, err := io.ReadAll(io.LimitReader(res.Body, nodestate.MaxTrustSize+1))
		if err != nil {
			return nil, fmt.Errorf("root documents: %w", err)
		}
		if len(b) > nodestate.MaxTrustSize {
			return nil, errors.New("root documents: too large")
		}
		var m nodestate.Manifest
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, fmt.Errorf("root documents: %w", err)
		}
		var docs [][]byte
		for _, l := range m.Layers {
			if len(l.Data) == 0 || l.MediaType != nodestate.MediaTypeRoot {
				return nil, errors.New("root documents: the store of states does not inline them")
			}
			docs = append(docs, l.Data)
		}
		return docs, nil
	}
}
