//! What an ELF program needs beside itself to run: its interpreter and its shared libraries, from this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use command_line::{ExitCode, Failure, FailureContext as _};
use elf::ElfBytes;
use elf::abi::{DT_NEEDED, DT_STRSZ, DT_STRTAB, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;

/// Where libraries are looked for: where the loaders of Debian, Fedora and their kin do by themselves.
const DIRECTORIES: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// The most libraries that a program may need.
const LIBRARIES: usize = 64;

/// Files by the path at which the program's loader looks for them; none for a static program.
pub(crate) fn libraries(name: &Path, program: &[u8]) -> Result<BTreeMap<PathBuf, Vec<u8>>, Failure> {
    let needs = Needs::of(program).ok_or_else(|| {
        Failure::bad_input(format!("`{}` is no ELF program of 64 bits", name.display()))
            .hint("name a `sealift-shim` that was built for the guest")
    })?;
    let mut found = BTreeMap::new();
    let mut open: Vec<String> = needs.libraries;
    let mut seen: BTreeSet<String> = open.iter().cloned().collect();
    if let Some(interpreter) = needs.interpreter {
        let path = PathBuf::from(&interpreter);
        // The libraries name it as well, without a path.
        seen.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        found.insert(path.clone(), read(&path)?);
    }
    while let Some(library) = open.pop() {
        let path = DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(&library))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                Failure::bad_input(format!("this machine has no library `{library}`, which `{}` needs", name.display()))
                    .hint("build the shim on this machine, or as a static program")
            })?;
        let content = read(&path)?;
        let needs = Needs::of(&content)
            .ok_or_else(|| Failure::bad_input(format!("`{}` is no ELF library of 64 bits", path.display())))?;
        open.extend(needs.libraries.into_iter().filter(|needed| seen.insert(needed.clone())));
        found.insert(path, content);
        if found.len() > LIBRARIES {
            return Err(Failure::bad_input(format!("`{}` needs more than {LIBRARIES} libraries", name.display())));
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).or_fail(ExitCode::BadInput, || format!("cannot read the library `{}`", path.display()))
}

/// What an ELF file asks of its loader.
#[derive(Debug, Default, Eq, PartialEq)]
struct Needs {
    interpreter: Option<String>,
    libraries: Vec<String>,
}

impl Needs {
    /// Reads program headers alone: a stripped file may have no sections.
    fn of(bytes: &[u8]) -> Option<Self> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).ok()?;
        let segments = file.segments()?;
        let mut needs = Self::default();
        if let Some(interpreter) = segments.iter().find(|segment| segment.p_type == PT_INTERP) {
            needs.interpreter = Some(text(file.segment_data(&interpreter).ok()?)?);
        }
        if !segments.iter().any(|segment| segment.p_type == PT_DYNAMIC) {
            return Some(needs);
        }
        let dynamic = file.dynamic().ok()??;
        let value = |tag| dynamic.iter().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val());
        let (address, length) = (value(DT_STRTAB)?, usize::try_from(value(DT_STRSZ)?).ok()?);
        // The table's address in memory, as an offset in the file.
        let segment = segments.iter().find(|segment| {
            let start = segment.p_vaddr;
            segment.p_type == PT_LOAD && address >= start && address - start < segment.p_filesz
        })?;
        let start = usize::try_from(segment.p_offset.checked_add(address - segment.p_vaddr)?).ok()?;
        let names = bytes.get(start..start.checked_add(length)?)?;
        for entry in dynamic.iter().filter(|entry| entry.d_tag == DT_NEEDED) {
            let name = text(names.get(usize::try_from(entry.d_val()).ok()?..)?)?;
            // A path would be another file than the one that is looked for.
            if name.is_empty() || name.contains('/') {
                return None;
            }
            needs.libraries.push(name);
        }
        Some(needs)
    }
}

/// The text up to the first zero byte.
fn text(bytes: &[u8]) -> Option<String> {
    let length = bytes.iter().position(|byte| *byte == 0)?;
    String::from_utf8(bytes.get(..length)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_very_test_needs_an_interpreter_and_the_c_library() {
        let program = std::env::current_exe().unwrap();
        let needs = Needs::of(&fs::read(&program).unwrap()).unwrap();
        assert!(needs.interpreter.is_some_and(|path| path.contains("ld-")));
        assert!(needs.libraries.iter().any(|library| library.starts_with("libc.")), "{:?}", needs.libraries);
        let libraries = libraries(&program, &fs::read(&program).unwrap()).unwrap();
        assert!(libraries.len() >= needs.libraries.len());
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert_eq!(Needs::of(b"#!/bin/sh\n"), None);
        assert!(libraries(Path::new("script"), b"#!/bin/sh\n").is_err());
    }

    proptest! {
        #[test]
        fn a_damaged_program_is_no_panic(at in 0usize..4096, value: u8) {
            let mut bytes = fs::read("/bin/true").unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Needs::of(&bytes);
        }
    }
}
