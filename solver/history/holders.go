package history

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"
)

func add(tx *bbolt.Tx, op operation) error {
	for _, b := range op.blobs {
		if b.data != nil {
			if err := tx.Bucket(blobBucket).Put([]byte(b.digest), b.data); err != nil {
				return err
			}
		}
		if err := tx.Bucket(holderBucket).Put(holderKey(b.digest, op.ref), []byte{}); err != nil {
			return err
		}
		if err := tx.Bucket(heldBucket).Put(append(heldPrefix(op.ref), b.digest...), []byte{}); err != nil {
			return err
		}
	}
	return tx.Bucket(recordBucket).Put([]byte(op.ref), op.value)
}

func holderKey(dgst digest.Digest, ref string) []byte { return []byte(string(dgst) + "\x00" + ref) }

// heldPrefix begins the keys of all blobs of a record, each followed by the digest.
func heldPrefix(ref string) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(ref))), ref...)
}

// remove deletes a record and the short blobs that only it held; it returns all of those.
func remove(tx *bbolt.Tx, ref string) ([]digest.Digest, error) {
	if err := tx.Bucket(recordBucket).Delete([]byte(ref)); err != nil {
		return nil, err
	}
	var mine []digest.Digest
	held, prefix := tx.Bucket(heldBucket), heldPrefix(ref)
	c := held.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		mine = append(mine, digest.Digest(k[len(prefix):]))
	}
	var gone []digest.Digest
	for _, dgst := range mine {
		err := errors.Join(held.Delete(append(prefix, dgst...)), tx.Bucket(holderBucket).Delete(holderKey(dgst, ref)))
		if err != nil {
			return nil, err
		}
		if !isHeld(tx, dgst) {
			gone = append(gone, dgst)
			if err := tx.Bucket(blobBucket).Delete([]byte(dgst)); err != nil {
				return nil, err
			}
		}
	}
	return gone, nil
}

// isHeld tells whether a record has a blob.
func isHeld(tx *bbolt.Tx, dgst digest.Digest) bool {
	k, _ := tx.Bucket(holderBucket).Cursor().Seek(holderKey(dgst, ""))
	return bytes.HasPrefix(k, holderKey(dgst, ""))
}
