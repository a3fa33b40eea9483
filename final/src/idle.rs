//! For a process that stays for long, and waits nearly always.

use std::ffi::c_void;

/// Gives back to the kernel what is not needed to wait: what is free in the heap (most of it was the command
/// line's), and the pages of our own program that have been used so far. The kernel has these in its
/// cache, for all who execute the file; what is used again is there at the next access (madvise(2)).
pub fn give_back() {
    let start = &raw const __executable_start;
    let length = &raw const etext as usize - start as usize;
    // SAFETY: from the program's first byte to the last of its code all is mapped from its file and cannot be
    // written, so the kernel can read each page again. What it refuses we keep, and need no less.
    unsafe { libc::madvise(start.cast_mut().cast::<c_void>(), length, libc::MADV_DONTNEED) };
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number. This process has one thread, or malloc(3) takes its own lock.
    unsafe {
        libc::malloc_trim(0)
    };
}

// The linker's names for the beginning of the program's file in memory, and for the end of its code (end(3)).
unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}
