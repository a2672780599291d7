//! How both command lines speak: exit codes, errors with hints, output and progress.
