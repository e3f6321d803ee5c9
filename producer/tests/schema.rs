//! What the program prints is what is published.

use std::path::Path;
use std::process::Command;

#[test]
fn the_published_schema_is_what_the_program_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_imagewright")).arg("schema").env_clear().output().unwrap();
    assert!(output.status.success());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/message-v1.json");
    let published = std::fs::read(&path).unwrap_or_default();
    assert!(
        output.stdout == published,
        "{} is out of date: write it anew with `imagewright schema > docs/schema/message-v1.json`",
        path.display()
    );
}
