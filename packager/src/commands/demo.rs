//! `demo`: the whole story on one machine. Every step is the real command, run as a child process, so that a reader can
//! repeat each by hand.

use std::path::{Path, PathBuf};

use command_line::{Console, ExitCode, Failure, FailureContext as _};

use crate::cli::DemoArgs;
use crate::demo::{Demo, Story};

pub(crate) async fn run(args: DemoArgs, console: &Console) -> Result<(), Failure> {
    let sealift = std::env::current_exe().or_fail(ExitCode::Other, || "cannot find this program".to_owned())?;
    let shim = match args.shim {
        Some(shim) => shim,
        None => sealift.with_file_name("sealift-shim"),
    };
    if !shim.is_file() {
        return Err(Failure::bad_input(format!("there is no shim at `{}`", shim.display()))
            .hint("build it with `cargo build --release --bins`, or name one by `--shim`"));
    }
    if let Some(directory) = args.keep {
        let demo = Demo::new(sealift, shim, make_new(&directory)?, true);
        return Story::new(demo, *console).tell().await;
    }
    let directory = tempfile::Builder::new().prefix("sealift-demo-").tempdir();
    let directory = directory.or_fail(ExitCode::Other, || "cannot make a temporary folder".to_owned())?;
    Story::new(Demo::new(sealift, shim, directory.path().to_owned(), false), *console).tell().await
}

fn make_new(directory: &Path) -> Result<PathBuf, Failure> {
    let is_taken = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if is_taken {
        return Err(Failure::bad_input(format!("`{}` is not empty", directory.display())).hint("name a new folder"));
    }
    std::fs::create_dir_all(directory)
        .and_then(|()| std::path::absolute(directory))
        .or_fail(ExitCode::BadInput, || format!("cannot make `{}`", directory.display()))
}
