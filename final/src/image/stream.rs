//! Streams of bytes: compressed, hashed, limited.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Error, Read, Write, copy, sink};

use anyhow::{Context as _, Result, bail};
use flate2::bufread::MultiGzDecoder;
use oci_spec::image::MediaType;
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::errors::ReadFrameHeaderError::SkipFrame;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};

/// How a layer or an archive is compressed, which its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// It is not.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// The first bytes of what we read and of what we know, but do not read.
const MAGIC: [(&[u8], Option<Compression>, &str); 6] = [
    (b"\x1f\x8b", Some(Compression::Gzip), "gzip"),
    (b"\x28\xb5\x2f\xfd", Some(Compression::Zstd), "zstd"),
    (b"\x50\x2a\x4d\x18", Some(Compression::Zstd), "zstd"), // begins with a frame to be skipped
    (b"\xfd7zXZ\0", None, "xz"),
    (b"BZh", None, "bzip2"),
    (b"PK\x03\x04", None, "zip"),
];

impl Compression {
    fn of(beginning: &[u8]) -> Result<Self> {
        match MAGIC.iter().find(|(magic, ..)| beginning.starts_with(magic)) {
            None => Ok(Self::None),
            Some((_, Some(compression), _)) => Ok(*compression),
            Some((_, None, name)) => bail!("{name} is not read here: decompress it first"),
        }
    }

    /// The OCI name of a layer in this form (image-spec, media-types.md).
    pub fn layer_type(self) -> MediaType {
        match self {
            Self::None => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

/// Reads what may be compressed.
pub fn decompress<'r>(mut from: impl Read + 'r) -> Result<(Compression, Box<dyn Read + 'r>)> {
    let mut beginning = Vec::new();
    from.by_ref().take(6).read_to_end(&mut beginning).context("cannot read it")?;
    let compression = Compression::of(&beginning)?;
    let all = BufReader::with_capacity(1 << 17, Cursor::new(beginning).chain(from));
    Ok((
        compression,
        match compression {
            Compression::None => Box::new(all),
            Compression::Gzip => Box::new(MultiGzDecoder::new(all)),
            Compression::Zstd => {
                Box::new(Zstd { from: all, decoder: FrameDecoder::new(), in_frame: false })
            }
        },
    ))
}

/// Zstandard's frames, one after the other: the decoder knows only one.
struct Zstd<R> {
    from: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            while self.in_frame {
                if self.decoder.can_collect() > 0 {
                    return self.decoder.read(buffer);
                }
                self.in_frame = !self.decoder.is_finished();
                if self.in_frame {
                    let one = BlockDecodingStrategy::UptoBlocks(1);
                    self.decoder.decode_blocks(&mut self.from, one).map_err(Error::other)?;
                }
            }
            if self.from.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.reset(&mut self.from) {
                Ok(()) => self.in_frame = true,
                Err(FrameDecoderError::ReadFrameHeaderError(SkipFrame { length, .. })) => {
                    copy(&mut self.from.by_ref().take(length.into()), &mut sink())?;
                }
                Err(error) => return Err(Error::other(error)),
            }
        }
    }
}

/// What is read or written through it has a digest and a size.
pub struct Hashing<S> {
    stream: S,
    hash: Sha256,
    /// How many bytes that were.
    pub bytes: u64,
}

impl<S> Hashing<S> {
    /// A stream of which nothing was read or written yet.
    pub fn new(stream: S) -> Self {
        Self { stream, hash: Sha256::new(), bytes: 0 }
    }

    /// The stream, and its digest: 64 hexadecimal digits.
    pub fn finish(self) -> (S, String) {
        (self.stream, hex(&self.hash.finalize()))
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.count(&buffer[..length]);
        Ok(length)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.stream.write(buffer)?;
        self.count(&buffer[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A reader that fails when it is asked for more than `budget` holds.
pub struct Limited<'b, R> {
    /// What is read.
    pub stream: R,
    /// How many bytes may still be read; others may change it meanwhile.
    pub budget: &'b Cell<u64>,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        match self.budget.get().checked_sub(length as u64) {
            Some(left) => self.budget.set(left),
            None => return Err(Error::other("it is larger than it may be")),
        }
        Ok(length)
    }
}

/// A tar archive whose last block is filled up with zeros: umoci leaves them out, and Go's reader does not
/// miss them.
pub struct Padded<'p, R> {
    /// What is read.
    pub stream: R,
    /// How much was read of the last block.
    pub length: usize,
    /// Whether it may end here: not in the middle of a file.
    pub may_pad: &'p Cell<bool>,
}

impl<R: Read> Read for Padded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = self.stream.read(buffer)?;
        let missing = self.length.next_multiple_of(512) - self.length;
        if length == 0 && missing > 0 && self.may_pad.get() {
            length = buffer.len().min(missing);
            buffer[..length].fill(0);
        }
        self.length = (self.length + length) % 512;
        Ok(length)
    }
}
