use super::*;

fn args(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn read_line(line: &str, file: &str) -> Result<(Cli, QueueSetting), String> {
    let file: Table = file.parse().unwrap();
    let command = command(&file).map_err(|failure| failure.text)?;
    let matches = command.try_get_matches_from(args(line)).map_err(|error| error.to_string())?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    let queue = queue(&cli, &matches).map_err(|failure| failure.text)?;
    Ok((cli, queue))
}

fn keep_of(line: &str, file: &str) -> String {
    let (cli, _) = read_line(line, file).unwrap();
    format!("{:?}", cli.command)
}

const UPLOAD: &str = "imagewright upload --name n --arch amd64 --cloud c --file /f";

#[test]
fn the_command_line_is_sound() {
    command(&Table::new()).unwrap().debug_assert();
}

#[test]
fn global_options_stand_on_either_side_of_the_command() {
    for line in [
        "imagewright --namespace x -f json --queue sqlite:/q queues",
        "imagewright queues --namespace x -f json --queue sqlite:/q",
    ] {
        let (cli, queue) = read_line(line, "").unwrap();
        assert_eq!(cli.global.namespace, "x");
        assert_eq!(cli.global.format, crate::cli::Format::Json);
        assert_eq!(queue, QueueSetting::Url("sqlite:/q".to_owned()));
    }
    let (cli, _) = read_line("imagewright dead list -vv --json", "").unwrap();
    assert!(cli.global.json && cli.global.verbose == 2);
}

#[test]
fn a_flag_beats_the_file_and_a_table_beats_the_top() {
    assert!(keep_of(UPLOAD, "").contains("keep: Keep(5)"));
    assert!(keep_of(UPLOAD, "keep = 3").contains("keep: Keep(3)"));
    assert!(keep_of(UPLOAD, "keep = 3\n[upload]\nkeep = 4\n[prune]\nkeep = 9").contains("keep: Keep(4)"));
    assert!(keep_of(&format!("{UPLOAD} --keep 7"), "keep = 3").contains("keep: Keep(7)"));
    let (cli, _) = read_line("imagewright --namespace flag queues", "namespace = 'file'").unwrap();
    assert_eq!(cli.global.namespace, "flag");
    let (cli, _) = read_line("imagewright queues", "namespace = 'file'\njson = true").unwrap();
    assert!(cli.global.namespace == "file" && cli.global.json);
}

#[test]
fn the_file_may_say_what_the_command_requires() {
    let (cli, _) = read_line("imagewright prune --name n", "cloud = ['a', 'b']\n[prune]\nkeep = 2").unwrap();
    let shown = format!("{:?}", cli.command);
    assert!(shown.contains(r#"[CloudName("a"), CloudName("b")]"#) && shown.contains("Keep(2)"), "{shown}");
    assert!(read_line("imagewright prune --name n --cloud c", "").is_err());
}

#[test]
fn a_key_that_is_no_option_is_named() {
    assert!(read_line("imagewright queues", "kep = 3").unwrap_err().contains("kep"));
    assert!(read_line("imagewright queues", "[upload]\nserver = 'x'").unwrap_err().contains("upload.server"));
    assert!(read_line("imagewright queues", "[uplaod]\nkeep = 1").unwrap_err().contains("uplaod"));
    assert!(read_line("imagewright queues", "config = 'x'").unwrap_err().contains("config"));
    assert!(read_line("imagewright queues", "keep = 1.5").unwrap_err().contains("keep"));
    assert!(read_line("imagewright queues", "queue_file = '/q'").is_ok());
}

#[test]
fn the_nearer_of_two_queues_counts() {
    let queue = |line: &str, file: &str| read_line(line, file).map(|(_, queue)| queue);
    assert_eq!(queue("imagewright queues", ""), Ok(QueueSetting::Default));
    assert_eq!(queue("imagewright queues --queue-file /q", "queue = 'amqp://h'"), Ok(QueueSetting::File("/q".into())));
    assert_eq!(
        queue("imagewright queues --queue amqp://h", "queue-file = '/q'"),
        Ok(QueueSetting::Url("amqp://h".into()))
    );
    assert!(queue("imagewright queues --queue amqp://h --queue-file /q", "").is_err());
}

#[test]
fn the_file_is_found_wherever_it_is_named() {
    let found = |line: &str, variable: Option<&str>| config_file(&args(line), variable.map(OsString::from));
    assert_eq!(found("imagewright queues --config /a", Some("/b")), Some("/a".into()));
    assert_eq!(found("imagewright --config=/a queues", None), Some("/a".into()));
    assert_eq!(found("imagewright queues", Some("/b")), Some("/b".into()));
    assert_eq!(found("imagewright status -- --config /a", Some("")), None);
}

#[test]
fn what_the_file_says_never_shows_in_a_help_text() {
    let file: Table = "queue = 'amqp://u:secret@h'".parse().unwrap();
    let error = command(&file).unwrap().try_get_matches_from(["imagewright", "queues", "--help"]).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn every_option_has_its_variable() {
    fn check(command: &Command) {
        for arg in command.get_arguments().filter(|arg| is_ours(arg)) {
            let variable = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            assert!(variable.starts_with(PREFIX), "{} {:?}", command.get_name(), arg.get_long());
            assert!(arg.is_hide_env_values_set());
        }
        command.get_subcommands().for_each(check);
    }
    check(&command(&Table::new()).unwrap());
}
