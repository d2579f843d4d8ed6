package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	bolt "go.etcd.io/bbolt"
)

func newDumpMetadataCommand() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use:   "dump-metadata",
		Short: "dump the meta in human-readable format.  This command requires the daemon NOT to be running.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return dumpMetadata(cmd.OutOrStdout(), root)
		},
	}
	cmd.Flags().StringVar(&root, "root", "/var/lib/buildkit", "path to state directory")
	return cmd
}

// dumpMetadata prints all databases below root.
func dumpMetadata(w io.Writer, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// What is inside images is not the daemon's.
			if name := d.Name(); name == "snapshots" || name == "content" || name == "blobs" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || filepath.Ext(path) != ".db" {
			return nil
		}
		return dumpDatabase(w, path)
	})
}

// lockTimeout is how long a database may be in use by others.
const lockTimeout = time.Second

func dumpDatabase(w io.Writer, path string) error {
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return fmt.Errorf("open %s, is the daemon running?: %w", path, err)
	}
	defer db.Close()
	fmt.Fprintf(w, "===== %s =====\n", path)
	return db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error { return dumpBucket(w, name, b, 0) })
	})
}

func dumpBucket(w io.Writer, name []byte, b *bolt.Bucket, depth int) error {
	indent := strings.Repeat("  ", depth)
	if _, err := fmt.Fprintf(w, "%sbucket %s:\n", indent, printable(name)); err != nil {
		return err
	}
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			return dumpBucket(w, k, b.Bucket(k), depth+1)
		}
		_, err := fmt.Fprintf(w, "%s  %s: %s\n", indent, printable(k), printable(v))
		return err
	})
}

// printable returns text as it is and anything else quoted.
func printable(b []byte) string {
	notPrint := func(r rune) bool { return !unicode.IsPrint(r) }
	if !utf8.Valid(b) || bytes.ContainsFunc(b, notPrint) {
		return strconv.Quote(string(b))
	}
	return string(b)
}
