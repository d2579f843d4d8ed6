package platform

import (
	"bytes"
	"debug/elf"
	"encoding/binary"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// architecture is one that may be emulated, or that the processor may run besides its own.
type architecture struct {
	platforms []ocispec.Platform
	machine   elf.Machine
	class     elf.Class
	order     binary.ByteOrder
	// flags are e_flags of the ELF header: the ABI, where an architecture has several.
	flags uint32
	// exit is code that ends the process with 0. It is written in units of order.
	exit []uint32
}

func (a *architecture) name() string { return a.platforms[0].Architecture }

func linux(arch string, variants ...string) []ocispec.Platform {
	if len(variants) == 0 {
		return []ocispec.Platform{{OS: "linux", Architecture: arch}}
	}
	var out []ocispec.Platform
	for _, v := range variants {
		out = append(out, ocispec.Platform{OS: "linux", Architecture: arch, Variant: v})
	}
	return out
}

// architectures are in the order in which clients are told of them. The code is a system call
// exit(0) by each architecture's own convention (man 2 syscall), assembled by hand from its manual.
var architectures = []architecture{
	{
		platforms: linux("amd64"), machine: elf.EM_X86_64, class: elf.ELFCLASS64, order: binary.LittleEndian,
		// xor edi, edi; mov eax, 60; syscall
		exit: []uint32{0x3cb8ff31, 0x0f000000, 0x90909005},
	},
	{
		platforms: linux("arm64"), machine: elf.EM_AARCH64, class: elf.ELFCLASS64, order: binary.LittleEndian,
		// mov x8, #93; mov x0, #0; svc #0
		exit: []uint32{0xd2800ba8, 0xd2800000, 0xd4000001},
	},
	{
		platforms: linux("riscv64"), machine: elf.EM_RISCV, class: elf.ELFCLASS64, order: binary.LittleEndian,
		// li a7, 93; li a0, 0; ecall
		exit: []uint32{0x05d00893, 0x00000513, 0x00000073},
	},
	{
		platforms: linux("ppc64le"), machine: elf.EM_PPC64, class: elf.ELFCLASS64, order: binary.LittleEndian, flags: 2,
		// li r0, 1; li r3, 0; sc
		exit: []uint32{0x38000001, 0x38600000, 0x44000002},
	},
	{
		platforms: linux("s390x"), machine: elf.EM_S390, class: elf.ELFCLASS64, order: binary.BigEndian,
		// lghi %r2, 0; svc 1
		exit: []uint32{0xa7290000, 0x0a010707},
	},
	{
		platforms: linux("386"), machine: elf.EM_386, class: elf.ELFCLASS32, order: binary.LittleEndian,
		// xor ebx, ebx; mov eax, 1; int 0x80
		exit: []uint32{0x01b8db31, 0xcd000000, 0x90909080},
	},
	{
		platforms: linux("mips64le"), machine: elf.EM_MIPS, class: elf.ELFCLASS64, order: binary.LittleEndian, flags: 0x60000000,
		// li v0, 5058; li a0, 0; syscall
		exit: []uint32{0x240213c2, 0x24040000, 0x0000000c},
	},
	{
		platforms: linux("mips64"), machine: elf.EM_MIPS, class: elf.ELFCLASS64, order: binary.BigEndian, flags: 0x60000000,
		exit: []uint32{0x240213c2, 0x24040000, 0x0000000c},
	},
	{
		platforms: linux("loong64"), machine: elf.EM_LOONGARCH, class: elf.ELFCLASS64, order: binary.LittleEndian, flags: 0x43,
		// ori a7, zero, 93; ori a0, zero, 0; syscall 0
		exit: []uint32{0x0381740b, 0x03800004, 0x002b0000},
	},
	{
		platforms: linux("arm", "v7", "v6"), machine: elf.EM_ARM, class: elf.ELFCLASS32, order: binary.LittleEndian, flags: 0x05000000,
		// mov r7, #1; mov r0, #0; svc #0
		exit: []uint32{0xe3a07001, 0xe3a00000, 0xef000000},
	},
}

// loadAddress is where a program is mapped. Every system lets a process have it.
const loadAddress = 0x400000

// program returns a static executable in the ELF format that does nothing but to end well: the file
// is a header, one segment that is the whole file, and the code.
func (a *architecture) program() []byte {
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(a.class), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	if a.order == binary.BigEndian {
		ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	const (
		align     = 0x10000 // the largest page there is
		codeSize  = 4
		readExec  = uint32(elf.PF_R | elf.PF_X)
		wholeFile = 0
	)
	var header, segment any
	if a.class == elf.ELFCLASS64 {
		const start = 64 + 56
		size := uint64(start + codeSize*len(a.exit))
		header = &elf.Header64{
			Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(a.machine), Version: uint32(elf.EV_CURRENT),
			Entry: loadAddress + start, Phoff: 64, Flags: a.flags, Ehsize: 64, Phentsize: 56, Phnum: 1,
		}
		segment = &elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: readExec, Off: wholeFile, Vaddr: loadAddress, Paddr: loadAddress,
			Filesz: size, Memsz: size, Align: align,
		}
	} else {
		const start = 52 + 32
		size := uint32(start + codeSize*len(a.exit))
		header = &elf.Header32{
			Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(a.machine), Version: uint32(elf.EV_CURRENT),
			Entry: loadAddress + start, Phoff: 52, Flags: a.flags, Ehsize: 52, Phentsize: 32, Phnum: 1,
		}
		segment = &elf.Prog32{
			Type: uint32(elf.PT_LOAD), Flags: readExec, Off: wholeFile, Vaddr: loadAddress, Paddr: loadAddress,
			Filesz: size, Memsz: size, Align: align,
		}
	}
	var out bytes.Buffer
	for _, part := range []any{header, segment, a.exit} {
		_ = binary.Write(&out, a.order, part) // fails only for types of no fixed size
	}
	return out.Bytes()
}
