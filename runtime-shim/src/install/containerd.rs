//! containerd: stream processors for encrypted layers, the settings without which CRI sends them no payload, and a runtime
//! class. Up to 1.7 a plugin's section in an imported file takes the place of the whole section before it, so that ours
//! repeats what the main file says.

use command_line::{ExitCode, Failure, FailureContext as _};
use toml::{Table, Value};

use super::containers::HEAD;
use super::plan::{Plan, PlannedFile, PlannedLine, Position};
use super::record::Root;
use super::version::Version;
use super::{Programs, text};

const MAIN: &str = "/etc/containerd/config.toml";
const DROP_IN: &str = "/etc/containerd/conf.d/sealift.toml";
const IMPORTS: &str = "/etc/containerd/conf.d/*.toml";

/// The shim of runc and everything that is like it.
const RUNTIME_TYPE: &str = "io.containerd.runc.v2";

/// What differs between lines of containerd.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// 1.6 and 1.7: configuration version 2, one CRI plugin.
    One,
    /// 2.1 and later: configuration version 3, images apart from runtimes.
    Two,
}

pub(super) fn plan(root: &Root, version: Version, programs: &Programs) -> Result<Plan, Failure> {
    let line = line(version)?;
    let text = root.read(MAIN)?;
    let main: Table = text
        .as_deref()
        .unwrap_or_default()
        .parse()
        .or_fail(ExitCode::BadInput, || format!("`{MAIN}` cannot be read as containerd reads it"))?;
    let mut plan = Plan { files: vec![programs.runtime()?], ..Plan::default() };
    plan.files.push(PlannedFile { path: DROP_IN.to_owned(), content: drop_in(line, &main, programs)?, mode: 0o644 });
    let content = format!("{HEAD}version = {}\nimports = [\"{IMPORTS}\"]\n", line.configuration());
    if text.is_none_or(|text| text == content) {
        plan.files.push(PlannedFile { path: MAIN.to_owned(), content, mode: 0o644 });
    } else {
        check_version(line, &main)?;
        plan.lines.extend(imports(&main)?);
    }
    plan.notes = vec![
        "restart containerd (systemctl restart containerd), then pull by CRI: `ctr` hands no keys to stream processors",
        "pods name the runtime by a RuntimeClass whose handler is `sealift`",
    ];
    Ok(plan)
}

/// # Errors
/// For versions that start a stream processor and never tell it which layer it is about.
fn line(version: Version) -> Result<Line, Failure> {
    let is_silent = match version.0 {
        [2, 0, _] => true,
        [2, 1, patch] => patch < 7,
        [2, 2, patch] => patch < 2,
        _ => false,
    };
    match version.0 {
        [1, 6 | 7, _] => Ok(Line::One),
        [major, ..] if major >= 2 && !is_silent => Ok(Line::Two),
        _ => Err(Failure::bad_input(format!("containerd {version} gives stream processors no keys"))
            .hint("use containerd 1.7, or 2.1.7, 2.2.2, 2.3 or later")),
    }
}

impl Line {
    /// The version of configuration files.
    fn configuration(self) -> i64 {
        match self {
            Self::One => 2,
            Self::Two => 3,
        }
    }

    /// The plugin that has runtimes.
    fn runtimes(self) -> &'static str {
        match self {
            Self::One => "io.containerd.grpc.v1.cri",
            Self::Two => "io.containerd.cri.v1.runtime",
        }
    }
}

fn check_version(line: Line, main: &Table) -> Result<(), Failure> {
    let found = main.get("version").and_then(Value::as_integer).unwrap_or(1);
    if found == line.configuration() {
        return Ok(());
    }
    Err(Failure::bad_input(format!(
        "`{MAIN}` is of version {found}, this containerd's own is {}",
        line.configuration()
    ))
    .hint("bring it up to date by `containerd config migrate`"))
}

/// The line by which the main file takes in ours, unless it does.
fn imports(main: &Table) -> Result<Option<PlannedLine>, Failure> {
    let Some(imports) = main.get("imports") else {
        let line = format!("imports = [\"{IMPORTS}\"] # by `sealift-shim install`");
        return Ok(Some(PlannedLine { path: MAIN.to_owned(), line, position: Position::First }));
    };
    let mut named = imports.as_array().into_iter().flatten().filter_map(Value::as_str);
    if named.any(|import| [IMPORTS, DROP_IN].contains(&import)) {
        return Ok(None);
    }
    Err(Failure::bad_input(format!("`{MAIN}` imports other files than `{IMPORTS}`"))
        .hint(format!("add \"{IMPORTS}\" to its `imports`, then run this once more")))
}

fn drop_in(line: Line, main: &Table, programs: &Programs) -> Result<String, Failure> {
    let mut document = Table::new();
    document.insert("version".to_owned(), Value::Integer(line.configuration()));
    document.insert("stream_processors".to_owned(), Value::Table(stream_processors(programs)?));
    let mut plugins = Table::new();
    if line == Line::One
        && let Some(cri) = plugin(main, line)
    {
        plugins.insert(line.runtimes().to_owned(), Value::Table(cri.clone()));
    }
    let images = match line {
        Line::One => {
            set(&mut plugins, &[line.runtimes(), "containerd", "disable_snapshot_annotations"], Value::Boolean(false));
            line.runtimes()
        }
        Line::Two => {
            let images = "io.containerd.cri.v1.images";
            set(&mut plugins, &[images, "use_local_image_pull"], Value::Boolean(true));
            set(&mut plugins, &[images, "disable_snapshot_annotations"], Value::Boolean(false));
            images
        }
    };
    set(&mut plugins, &[images, "image_decryption", "key_model"], "node".into());
    let runtimes = [line.runtimes(), "containerd", "runtimes"];
    let set_runtime = |plugins: &mut Table, path: &[&str], value| set(plugins, &[&runtimes[..], path].concat(), value);
    // Where runtimes are named, containerd adds none by itself, and its default is this one.
    if runc(main, line).is_none() {
        set_runtime(&mut plugins, &["runc", "runtime_type"], RUNTIME_TYPE.into());
    }
    set_runtime(&mut plugins, &["sealift", "runtime_type"], RUNTIME_TYPE.into());
    // The same cgroups as the pods beside it.
    let options = runc(main, line).and_then(|runc| runc.get("options")?.as_table());
    let mut options = options.cloned().unwrap_or_default();
    options.insert("BinaryName".to_owned(), Programs::RUNTIME.into());
    set_runtime(&mut plugins, &["sealift", "options"], Value::Table(options));
    document.insert("plugins".to_owned(), Value::Table(plugins));
    let text = toml::to_string_pretty(&document).or_fail(ExitCode::Other, || format!("cannot write `{DROP_IN}`"))?;
    let repeated = match line {
        Line::One => {
            "# The section of CRI repeats what config.toml says, since it takes its place: run `install` again after changes there.\n"
        }
        Line::Two => "",
    };
    Ok(format!("{HEAD}{repeated}{text}"))
}

/// Only these two names are given payloads, so that a layer compressed with zstd goes by that of an uncompressed one. It
/// comes out as it went in, under a type for which containerd looks what it is.
fn stream_processors(programs: &Programs) -> Result<Table, Failure> {
    let (shim, agent) = (text(&programs.shim)?, text(&programs.agent)?);
    let processor = |accepts: &[&str], returns: &str| {
        let mut table = Table::new();
        table.insert("accepts".to_owned(), strings(accepts));
        table.insert("returns".to_owned(), returns.into());
        table.insert("path".to_owned(), shim.into());
        table.insert("args".to_owned(), strings(&["stream-processor", "--agent", agent]));
        Value::Table(table)
    };
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let accepted = ["+encrypted", "+gzip+encrypted", "+zstd+encrypted"].map(|suffix| format!("{tar}{suffix}"));
    let [plain, gzip, zstd] = accepted.each_ref().map(String::as_str);
    let mut table = Table::new();
    let unknown = "application/vnd.docker.image.rootfs.diff.tar";
    table.insert("io.containerd.ocicrypt.decoder.v1.tar".to_owned(), processor(&[plain, zstd], unknown));
    table.insert("io.containerd.ocicrypt.decoder.v1.tar.gzip".to_owned(), processor(&[gzip], &format!("{tar}+gzip")));
    Ok(table)
}

fn strings(texts: &[&str]) -> Value {
    Value::Array(texts.iter().map(|text| (*text).into()).collect())
}

fn plugin(main: &Table, line: Line) -> Option<&Table> {
    main.get("plugins")?.get(line.runtimes())?.as_table()
}

/// The runtime that containerd uses unless it is told another.
fn runc(main: &Table, line: Line) -> Option<&Table> {
    plugin(main, line)?.get("containerd")?.get("runtimes")?.get("runc")?.as_table()
}

/// Puts a value where a path of tables leads.
fn set(table: &mut Table, path: &[&str], value: Value) {
    match path {
        [] => {}
        [name] => {
            table.insert((*name).to_owned(), value);
        }
        [name, rest @ ..] => {
            let next = table.entry(*name).or_insert_with(|| Value::Table(Table::new()));
            if !next.is_table() {
                *next = Value::Table(Table::new());
            }
            if let Value::Table(next) = next {
                set(next, rest, value);
            }
        }
    }
}
