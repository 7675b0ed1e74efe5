//! Products by tiles: AMX, which Intel's server CPUs have since Sapphire Rapids.
//!
//! A tile is a register of up to 16 rows of 64 bytes; a CPU has eight for each thread. `tdpbf16ps` takes a tile of 16 rows with 32 inputs each
//! in bf16, and one of those inputs with 16 outputs, and adds their product to a tile of 16 × 16 sums in f32. Within one such step a sum's
//! even and odd words are added one after another each, from 0 on, then both, then that to what was there. `crate::bf16` lays inputs in an
//! order in which this is the order of sums on every CPU.
//!
//! A process asks the system once whether it may use tiles: their registers have 8 KiB, which the system then saves with each thread's
//! others. Instructions are written out here, since Rust has no stable functions for them.

/// Rows of a tile of sums.
pub(crate) const TILE_ROWS: usize = 16;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native {
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::marker::PhantomData;
    use std::sync::OnceLock;

    use crate::amx::TILE_ROWS;
    use crate::compute::has_pairs;
    use crate::copies::PANEL;

    /// Cells of a row that one step multiplies: a block of inputs.
    const STEP: usize = 16;

    /// Bits of the third register of `cpuid`'s leaf 7.
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;

    /// Linux: `arch_prctl`, and what is asked of it: the use of a state, here that of tiles' contents.
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;

    /// Whether the CPU has tiles of bf16 and the system lets this process use them. It is asked once.
    pub fn has_tiles() -> bool {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        *ALLOWED.get_or_init(|| {
            // Rows are put into cells by instructions of AVX-512.
            has_pairs() && __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE && allowed()
        })
    }

    fn allowed() -> bool {
        let answer: i64;
        // SAFETY: a call that reads and writes no memory of ours; older systems answer with an error.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => answer,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        answer == 0
    }

    /// What `ldtilecfg` reads: how many rows each of the eight tiles has, and how many bytes a row.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// While this lives, the thread that made it has tiles with shapes: no other one has, and it makes no second one.
    pub struct Tiles {
        rows: usize,
        /// Stays on its thread.
        here: PhantomData<*const ()>,
    }

    impl Tiles {
        /// Tiles for `rows` rows, 16 at most: 0 to 2 for sums and 6 for rows have so many, and 3 to 5 for a panel have 16.
        ///
        /// # Panics
        /// Where there are none.
        pub fn new(rows: usize) -> Self {
            assert!(has_tiles() && (1..=TILE_ROWS).contains(&rows), "tiles of up to 16 rows");
            let mut shapes = Shapes { palette: 1, start: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
            for (tile, rows) in
                [(0, rows), (1, rows), (2, rows), (3, TILE_ROWS), (4, TILE_ROWS), (5, TILE_ROWS), (6, rows)]
            {
                shapes.bytes[tile] = 64;
                shapes.rows[tile] = rows as u8;
            }
            // SAFETY: there are tiles, and the shapes are as they must be.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly));
            }
            Self { rows, here: PhantomData }
        }

        /// Writes sums of as many rows as tiles were made for, whose cells begin `stride` apart, with a panel's 48 outputs, begun at 0.
        ///
        /// # Safety
        /// A row has `blocks` times 16 cells, and the panel 48 times as many. No other tiles were made on this thread since these.
        #[inline]
        pub unsafe fn chains(
            &self,
            sums: &mut [[f32; PANEL]],
            (x, stride): (*const f32, usize),
            panel: *const f32,
            blocks: usize,
        ) {
            const CELL: usize = size_of::<f32>();
            assert!(sums.len() >= self.rows, "sums of each row");
            // SAFETY: as the caller promises, and as was just asserted; nothing else uses tiles.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "test {blocks}, {blocks}",
                    "jz 3f",
                    "2:",
                    "tileloadd tmm6, [{x} + {stride}]",
                    "tileloadd tmm3, [{panel} + {line}]",
                    "tdpbf16ps tmm0, tmm6, tmm3",
                    "tileloadd tmm4, [{panel} + {line} + 64]",
                    "tdpbf16ps tmm1, tmm6, tmm4",
                    "tileloadd tmm5, [{panel} + {line} + 128]",
                    "tdpbf16ps tmm2, tmm6, tmm5",
                    "add {x}, {row_block}",
                    "add {panel}, {panel_block}",
                    "dec {blocks}",
                    "jnz 2b",
                    "3:",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 64], tmm1",
                    "tilestored [{sums} + {line} + 128], tmm2",
                    x = inout(reg) x => _,
                    panel = inout(reg) panel => _,
                    blocks = inout(reg) blocks => _,
                    stride = in(reg) stride * CELL,
                    line = in(reg) PANEL * CELL,
                    sums = in(reg) sums.as_mut_ptr(),
                    row_block = const STEP * CELL,
                    panel_block = const STEP * PANEL * CELL,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                    options(nostack),
                );
            }
        }
    }

    impl Drop for Tiles {
        /// Threads whose tiles are empty change places faster.
        fn drop(&mut self) {
            // SAFETY: there are tiles, and nobody uses them any more.
            unsafe {
                asm!("tilerelease", options(nostack, nomem));
            }
        }
    }
}

/// Where there are no tiles.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod native {
    use crate::copies::PANEL;

    pub fn has_tiles() -> bool {
        false
    }

    const NONE: &str = "cells of tiles are made where a CPU multiplies them";

    pub struct Tiles(());

    impl Tiles {
        pub fn new(_: usize) -> Self {
            unreachable!("{NONE}")
        }

        pub unsafe fn chains(&self, _: &mut [[f32; PANEL]], _: (*const f32, usize), _: *const f32, _: usize) {
            let Self(()) = self;
            unreachable!("{NONE}")
        }
    }
}

pub(crate) use native::{Tiles, has_tiles};
