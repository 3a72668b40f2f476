//! Memory that outlives us: a file without a name (`memfd_create(2)`), mapped by us and held by others.
//!
//! It has one writer. What a store has written stays when the writer is killed after it, in the order of the stores,
//! since the pages belong to the file. What is written there is the caller's.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{
    MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create, seek,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The whole file, mapped. Places beyond its end are passed over.
#[derive(Debug)]
pub struct Memory {
    file: OwnedFd,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned, and reached through it alone.
unsafe impl Send for Memory {}

impl Memory {
    /// Zeroes, as many bytes. Only those that are written to need memory.
    ///
    /// # Errors
    /// EMFILE or ENFILE at the limit of open files; ENOMEM for want of address space; `FileTooLarge` if no file may be so
    /// long.
    pub fn new(name: &str, len: usize) -> io::Result<Memory> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, u64::try_from(len).unwrap_or(u64::MAX)).map_err(|error| match error {
            Errno::FBIG => io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("no file may have {len} bytes: the limit RLIMIT_FSIZE (ulimit -f) is lower"),
            ),
            error => error.into(),
        })?;
        fcntl_add_seals(&file, SIZE_IS_FIXED)?;
        Memory::map(file, len)
    }

    /// The file that another process has written.
    ///
    /// # Errors
    /// `InvalidData` if its size could change, which would end us when we touch what is cut off; else as above.
    pub fn adopt(file: OwnedFd) -> io::Result<Memory> {
        if !fcntl_get_seals(&file)?.contains(SIZE_IS_FIXED) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the size of the shared memory is not sealed",
            ));
        }
        let len = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
        Memory::map(file, len)
    }

    fn map(file: OwnedFd, len: usize) -> io::Result<Memory> {
        let (how, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: maps where the kernel chooses, the whole of a file whose size cannot change any more.
        let start = unsafe { mmap(ptr::null_mut(), len, how, flags, &file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Memory { file, start, len })
    }

    /// A copy as it is at this moment, of what was written to only.
    ///
    /// # Errors
    /// As for [`Memory::new`].
    pub fn copy(&self, name: &str) -> io::Result<OwnedFd> {
        let mut copy = Memory::new(name, self.len)?;
        let mut at = 0;
        // Where nothing was written there is a hole (lseek(2), SEEK_DATA).
        while let Ok(begin) = seek(&self.file, SeekFrom::Data(at)) {
            at = seek(&self.file, SeekFrom::Hole(begin))?;
            let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(self.len);
            copy.write(place(begin), &self.bytes()[place(begin)..place(at)]);
        }
        copy.file.try_clone()
    }

    /// All bytes, as they are at this moment.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped as long as `self`; writers need `&mut self`, and the kernel writes pids only within a clone(2),
        // during which nobody holds this.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Replaces bytes from `at` on, aligned words of 8 bytes at once.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        if at.checked_add(bytes.len()).is_none_or(|end| end > self.len) {
            return;
        }
        let mut at = at;
        let mut rest = bytes;
        while let Some((byte, others)) = rest.split_first() {
            if let (0, Some((word, others))) = (at % 8, rest.split_first_chunk::<8>()) {
                // SAFETY: aligned, within the mapping, and reached by atomic stores only while we hold `&mut self`.
                let place = unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(at).cast()) };
                place.store(u64::from_ne_bytes(*word), Ordering::Release);
                (at, rest) = (at + 8, others);
            } else {
                // SAFETY: within the mapping, as above.
                let place = unsafe { AtomicU8::from_ptr(self.start.as_ptr().add(at)) };
                place.store(*byte, Ordering::Release);
                (at, rest) = (at + 1, others);
            }
        }
    }

    /// The aligned word of 4 bytes at this place, in the machine's order; 0 if there is none.
    #[must_use]
    pub fn word(&self, at: usize) -> u32 {
        // SAFETY: as `address` says; loads may meet the kernel's store of a pid.
        self.address(at)
            .map_or(0, |place| unsafe { AtomicU32::from_ptr(place.as_ptr()) }.load(Ordering::Acquire))
    }

    /// Where the aligned word of 4 bytes at this place is, as long as this lives.
    #[must_use]
    pub fn address(&self, at: usize) -> Option<NonNull<u32>> {
        let fits = at.is_multiple_of(4) && at.checked_add(4).is_some_and(|end| end <= self.len);
        // SAFETY: within the mapping.
        fits.then(|| unsafe { self.start.add(at) }.cast())
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody else has the mapping, and nothing borrowed from it lives.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A file without a name that holds these bytes and can never change.
///
/// # Errors
/// EMFILE or ENFILE at the limit of open files; ENOSPC, ENOMEM for want of memory.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write as _;
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SIZE_IS_FIXED | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file.into())
}

/// The bytes of such a file.
///
/// # Errors
/// Those of pread(2).
pub fn read(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let len = usize::try_from(fstat(file)?.st_size).unwrap_or(0);
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let read = rustix::io::pread(file, &mut bytes[at..], at as u64)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at += read;
    }
    Ok(bytes)
}

const SIZE_IS_FIXED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_for_whoever_has_the_file() {
        let mut memory = Memory::new("test", 100).unwrap();
        memory.write(3, b"over an aligned word");
        memory.write(95, b"too far");
        let other = Memory::adopt(memory.as_fd().try_clone_to_owned().unwrap()).unwrap();
        drop(memory);
        assert_eq!(&other.bytes()[3..23], b"over an aligned word");
        assert_eq!(other.bytes()[95..], [0; 5]);
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_holes() {
        let mut memory = Memory::new("test", 1 << 26).unwrap();
        memory.write(5_000_000, b"in the middle");
        let copy = Memory::adopt(memory.copy("copy").unwrap()).unwrap();
        memory.write(5_000_000, b"changed since");
        assert_eq!(&copy.bytes()[5_000_000..5_000_013], b"in the middle");
        assert!(fstat(&copy).unwrap().st_blocks < 64);
    }

    #[test]
    fn a_file_that_could_shrink_is_not_mapped() {
        let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, 4096).unwrap();
        assert_eq!(Memory::adopt(file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_sealed_file_can_be_read_and_never_changed() {
        let file = sealed("test", b"as it is").unwrap();
        assert_eq!(read(file.as_fd()).unwrap(), b"as it is");
        assert!(rustix::io::write(&file, b"x").is_err());
        assert!(ftruncate(&file, 1).is_err());
    }

    #[test]
    fn a_word_is_where_its_address_is() {
        let mut memory = Memory::new("test", 64).unwrap();
        memory.write(8, &7u32.to_ne_bytes());
        assert_eq!((memory.word(8), memory.word(61), memory.word(64)), (7, 0, 0));
        assert!(memory.address(8).is_some() && memory.address(9).is_none() && memory.address(64).is_none());
    }
}
