package blob

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// The blocks of a piece must need nothing of the piece before: neither offsets that both repeat, nor
// tables. Every piece here begins with what a frame's first matches would be cheapest for, at the
// offsets that a frame begins with, after a piece that ends with others.
func TestPiecesOfAZstdFrameNeedNothingOfEachOther(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	begin := func(period int) []byte {
		unit := make([]byte, period)
		for i := range unit {
			unit[i] = byte(r.IntN(256))
		}
		return bytes.Repeat(unit, 300/period)
	}
	var in []byte
	for n, period := range []int{8, 4, 1, 3, 17, 8} {
		p := begin(period)
		if n%2 == 1 { // the first match comes after literals
			p = append([]byte("some words that come before"), p...)
		}
		for len(p) < zstdPiece {
			p = append(p, text(1000+r.IntN(4000))...)
			p = append(p, begin(1+r.IntN(100))...)
		}
		in = append(in, p[:zstdPiece]...)
	}
	for _, tail := range []int{0, 1, 300, 200_000} {
		in := append(bytes.Clone(in), begin(4)[:min(tail, 300)]...)
		in = append(in, text(tail)...)
		for _, level := range []int{1, 3, 8, 19} { // all that the library has
			if level != 3 && (raced || tail != 300) {
				continue
			}
			packed := compress(t, in, Zstd, &level, 1<<20)
			require.True(t, bytes.Equal(in, decompress(t, packed)), "level %d and %d bytes more", level, tail)
			cmd := exec.Command("zstd", "-dc")
			cmd.Stdin = bytes.NewReader(packed)
			got, err := cmd.Output()
			require.NoError(t, err, "hack/install-deps.sh installs it")
			require.True(t, bytes.Equal(in, got), "level %d and %d bytes more", level, tail)
		}
	}
}

func TestAZstdLayerIsOneFrameWithAChecksum(t *testing.T) {
	for _, size := range []int{0, 1, 100, 300_000, 2*zstdPiece + 1} {
		in := text(size)
		packed := compress(t, in, Zstd, nil, 1<<20)
		var h zstd.Header
		require.NoError(t, h.Decode(packed))
		require.True(t, h.HasCheckSum)
		require.False(t, h.Skippable)
		require.Equal(t, uint64(zstdPiece), h.WindowSize)
		broken := bytes.Clone(packed)
		broken[len(broken)-1]++
		d, err := zstd.NewReader(nil, zstd.IgnoreChecksum(false))
		require.NoError(t, err)
		_, err = d.DecodeAll(broken, nil)
		require.ErrorIs(t, err, zstd.ErrCRCMismatch)
		d.Close()
	}
}

func TestFramesOfAnotherFormAreRefused(t *testing.T) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false))
	require.NoError(t, err)
	good := e.EncodeAll(text(200_000), nil)
	_, err = openFrame(bytes.Clone(good))
	require.NoError(t, err)
	for n := range 12 {
		_, err := openFrame(bytes.Clone(good[:n]))
		require.ErrorIs(t, err, errFrame, "%d bytes", n)
	}
	_, err = openFrame(append(bytes.Clone(good), 0))
	require.ErrorIs(t, err, errFrame)
	summed, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	_, err = openFrame(summed.EncodeAll(text(1000), nil))
	require.ErrorIs(t, err, errFrame)
}

func FuzzZstdPieces(f *testing.F) {
	f.Add(uint64(1), 3, 1000)
	f.Add(uint64(2), 1, zstdPiece)
	f.Add(uint64(3), 8, zstdPiece+7)
	f.Fuzz(func(t *testing.T, seed uint64, level, size int) {
		if size < 0 || size > 3*zstdPiece || CheckLevel(Zstd, &level) != nil {
			return
		}
		r := rand.New(rand.NewPCG(seed, 1))
		var in []byte
		for len(in) < size {
			switch r.IntN(3) {
			case 0:
				in = append(in, text(r.IntN(1<<r.IntN(18)+1))...)
			case 1:
				in = append(in, bytes.Repeat([]byte{byte(r.IntN(3)), byte(r.IntN(3))}, r.IntN(1000))...)
			case 2:
				for range r.IntN(1 << r.IntN(17)) {
					in = append(in, byte(r.IntN(1+r.IntN(256))))
				}
			}
		}
		in = in[:size]
		require.True(t, bytes.Equal(in, decompress(t, compress(t, in, Zstd, &level, 1<<20))))
	})
}
