//! What the program prints is what is published.

use std::path::Path;
use std::process::Command;

#[test]
fn the_published_schema_is_what_the_program_prints() {
    for (words, file) in
        [("schema", "message-v1.json"), ("schema message", "message-v1.json"), ("schema schedule", "schedule-v1.json")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagewright"));
        let output = command.args(words.split(' ')).env_clear().output().unwrap();
        assert!(output.status.success());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema").join(file);
        let published = std::fs::read(&path).unwrap_or_default();
        assert!(
            output.stdout == published,
            "{} is out of date: write it anew with `imagewright {words} > docs/schema/{file}`",
            path.display()
        );
    }
}
