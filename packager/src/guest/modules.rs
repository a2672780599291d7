//! Kernel modules for a guest: those that it needs to boot and attest, what they depend on, in the order of loading.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use command_line::{ExitCode, Failure, FailureContext as _};

/// Without them the guest reaches nothing.
const REQUIRED: [&str; 2] = ["virtio_pci", "virtio_net"];
/// Simulated evidence comes over a virtio serial port.
const SIMULATED: &str = "virtio_console";
/// Launch evidence of hardware: the report device, and the file system through which it is asked.
pub(crate) const EVIDENCE: [&str; 2] = ["configfs", "sev_guest"];
/// Of use where the kernel has them.
const OPTIONAL: [&str; 1] = ["virtio_rng"];
/// The largest module, in bytes.
const MODULE: u64 = 64 * 1024 * 1024;

/// The modules of a guest, in the order of loading.
pub(crate) struct Modules {
    /// File name and content, decompressed.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Wanted for launch evidence and not there, neither as a module nor built in.
    pub(crate) absent_evidence: Vec<&'static str>,
}

/// Picks modules from `directory`, such as `/lib/modules/6.12.0-amd64`: the needed ones, and `further` ones by name.
pub(crate) fn pick(directory: &Path, further: &[String], simulated: bool) -> Result<Modules, Failure> {
    let index = Index::read(directory)?;
    let mut order = Vec::new();
    let mut absent_evidence = Vec::new();
    for name in OPTIONAL {
        // A kernel without one of them boots as well.
        let _ = index.add(name, &mut order);
    }
    for name in EVIDENCE {
        if !index.add(name, &mut order) {
            absent_evidence.push(name);
        }
    }
    let required = REQUIRED.into_iter().chain(simulated.then_some(SIMULATED)).chain(further.iter().map(String::as_str));
    for name in required {
        if !index.add(name, &mut order) {
            return Err(Failure::bad_input(format!("`{}` has no module `{name}`", directory.display()))
                .hint("name the modules of the kernel that boots, `/lib/modules/VERSION`"));
        }
    }
    let files = order
        .into_iter()
        .map(|path| {
            let file = directory.join(path);
            let content =
                read(&file).or_fail(ExitCode::BadInput, || format!("cannot read the module `{}`", file.display()))?;
            Ok((format!("{}.ko", module_name(path)), content))
        })
        .collect::<Result<_, Failure>>()?;
    Ok(Modules { files, absent_evidence })
}

/// What depmod wrote of the modules.
struct Index {
    /// Path and the paths that it depends on, by name.
    modules: BTreeMap<String, (String, Vec<String>)>,
    /// Names of what the kernel has built in.
    built_in: Vec<String>,
}

impl Index {
    fn read(directory: &Path) -> Result<Self, Failure> {
        let read = |name: &str| {
            let file = directory.join(name);
            fs::read_to_string(&file)
                .or_fail(ExitCode::BadInput, || format!("cannot read `{}`", file.display()))
                .map_err(|failure| failure.hint("name a folder of modules with depmod's files in it"))
        };
        Ok(Self::parse(&read("modules.dep")?, &read("modules.builtin")?))
    }

    fn parse(dependencies: &str, built_in: &str) -> Self {
        let modules = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| {
                let needs = needs.split_whitespace().map(ToOwned::to_owned).collect();
                (module_name(path), (path.to_owned(), needs))
            })
            .collect();
        Self { modules, built_in: built_in.lines().map(module_name).collect() }
    }

    /// Adds a module after what it depends on; whether the kernel has it, built in or not.
    fn add<'a>(&'a self, name: &str, order: &mut Vec<&'a str>) -> bool {
        let name = name.replace('-', "_");
        let Some((path, needs)) = self.modules.get(&name) else { return self.built_in.contains(&name) };
        // depmod lists what is needed first last.
        for path in needs.iter().rev().chain([path]) {
            if !order.contains(&path.as_str()) {
                order.push(path);
            }
        }
        true
    }
}

/// `virtio_rng` of `kernel/drivers/char/hw_random/virtio-rng.ko.xz`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

/// A module's content, decompressed: not every kernel can do that when it is loaded.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let source = fs::File::open(file)?;
    let mut source: Box<dyn io::Read> = match file.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(flate2::read::GzDecoder::new(source)),
        Some("xz") => Box::new(lzma_rust2::XzReader::new(io::BufReader::new(source), false)),
        Some("zst") => Box::new(zstd::Decoder::new(source)?),
        _ => Box::new(source),
    };
    let mut content = Vec::new();
    source.by_ref().take(MODULE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MODULE {
        return Err(io::Error::other("it is larger than 64 MiB"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
";

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let index = Index::parse(DEPENDENCIES, "kernel/fs/configfs/configfs.ko\n");
        let mut order = Vec::new();
        assert!(index.add("virtio-rng", &mut order) && index.add("virtio_pci", &mut order));
        let names: Vec<String> = order.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_rng", "virtio_pci"]);
        assert!(index.add("configfs", &mut order), "it is built in");
        assert!(!index.add("floppy", &mut order));
        assert_eq!(order.len(), 4);
    }

    #[test]
    fn a_compressed_module_is_the_same_module() {
        use std::io::Write as _;
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        fs::write(file("m.ko"), b"module").unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"module").unwrap();
        fs::write(file("m.ko.gz"), gzip.finish().unwrap()).unwrap();
        fs::write(file("m.ko.zst"), zstd::encode_all(&b"module"[..], 1).unwrap()).unwrap();
        // What `printf module | xz --check=crc32` writes.
        fs::write(file("m.ko.xz"), hex::decode(XZ).unwrap()).unwrap();
        for name in ["m.ko", "m.ko.gz", "m.ko.xz", "m.ko.zst"] {
            assert_eq!(read(&file(name)).unwrap(), b"module", "{name}");
        }
        fs::write(file("cut.ko.xz"), &hex::decode(XZ).unwrap()[..30]).unwrap();
        assert!(read(&file("cut.ko.xz")).is_err());
    }

    const XZ: &str = "fd377a585a0000016922de360200210116000000742fe5a30100056d6f64756c650000002826240c00011a06c5eac8799042990d010000000001595a";
}
