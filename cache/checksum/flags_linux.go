package checksum

import "golang.org/x/sys/unix"

// openFlags refuse links, which can't be there, and don't wait for the writer of a pipe.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

var errNotDir = unix.ENOTDIR
