// Package asnode pulls and verifies what is published, as a node does that trusts the
// first root document that it meets. It is for tests.
package asnode

import (
	"context"
	"errors"

	"selvedge/edge/pull"
	"selvedge/edge/verify"
	"selvedge/schema/trust"
)

// State returns the newest state of a node with that public key.
func State(ctx context.Context, registry, node, publicKey string) (verify.State, error) {
	c, err := pull.New(pull.Config{Registry: registry, Node: node, Wait: -1})
	if err != nil {
		return verify.State{}, err
	}
	defer c.Close()
	docs, err := c.Trust(ctx)
	if err != nil {
		return verify.State{}, err
	}
	first, err := trust.Parse(docs[0])
	if err != nil {
		return verify.State{}, err
	}
	root, err := trust.Walk(first, docs)
	if err != nil {
		return verify.State{}, err
	}
	res, err := c.State(ctx, "")
	if err != nil {
		return verify.State{}, err
	}
	v := verify.Verifier{Node: node, PublicKey: publicKey, Root: root}
	s, err := v.Verify(res.Signed, verify.Floor{}, nil)
	for _, more := range res.More {
		if err == nil {
			break
		}
		if other, e := v.Verify(more, verify.Floor{}, nil); e == nil {
			s, err = other, nil
		}
	}
	return s, err
}

// Trust returns the published root documents, oldest first.
func Trust(ctx context.Context, registry string) ([][]byte, error) {
	c, err := pull.New(pull.Config{Registry: registry, Node: "any", Wait: -1})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	docs, err := c.Trust(ctx)
	if err == nil && len(docs) == 0 {
		err = errors.New("no root document is published")
	}
	return docs, err
}
