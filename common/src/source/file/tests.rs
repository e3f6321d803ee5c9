use std::fs;
use std::os::unix::fs::symlink;

use super::*;

struct Place {
    _directory: tempfile::TempDir,
    top: PathBuf,
    roots: FileRoots,
}

impl Place {
    /// `root/` with a file `image` in it, and a file `secret` beside it.
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().to_owned();
        fs::create_dir(top.join("root")).unwrap();
        fs::write(top.join("root/image"), b"the image").unwrap();
        fs::write(top.join("secret"), b"secret").unwrap();
        let roots = FileRoots::open_all(&[top.join("root")]).unwrap();
        Place { _directory: directory, top, roots }
    }

    fn open(&self, rest: &str) -> Result<FileSource, SourceError> {
        self.roots.open(&format!("{}/{rest}", self.top.display()))
    }

    #[track_caller]
    fn refused(&self, rest: &str, word: &str) {
        let error = self.open(rest).unwrap_err();
        let SourceError::Refused { field, reason } = error else { panic!("{error:?}") };
        assert_eq!(field, "spec.source.file");
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
    }

    #[track_caller]
    fn changed(source: &FileSource, word: &str) {
        let error = source.unchanged().unwrap_err();
        let SourceError::Changed { reason } = error else { panic!("{error:?}") };
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
    }
}

#[test]
fn a_file_beneath_the_root_opens() {
    let place = Place::new();
    for path in ["root/image", "root//image", "root/./image"] {
        let source = place.open(path).unwrap();
        assert_eq!(source.length(), 9);
        let mut buffer = [0; 16];
        assert_eq!(source.read_at(&mut buffer, 4).unwrap(), 5);
        assert_eq!(&buffer[..5], b"image");
        source.unchanged().unwrap();
    }
}

#[test]
fn no_path_leads_out_of_the_root() {
    let place = Place::new();
    fs::create_dir(place.top.join("root/sub")).unwrap();
    symlink("../secret", place.top.join("root/relative")).unwrap();
    symlink(place.top.join("secret"), place.top.join("root/absolute")).unwrap();
    symlink("..", place.top.join("root/up")).unwrap();
    symlink("/proc/self/fd/0", place.top.join("root/magic")).unwrap();
    symlink("round", place.top.join("root/round")).unwrap();
    place.refused("root/../secret", "out of");
    place.refused("root/sub/../../secret", "out of");
    place.refused("root/relative", "out of");
    place.refused("root/absolute", "out of");
    place.refused("root/up/secret", "out of");
    place.refused("root/magic", "out of");
    place.refused("root/round", "out of");
    place.refused("secret", "not beneath");
    place.refused("root", "not beneath");
    place.refused("rooted/image", "not beneath");
    place.refused("other/../root/image", "not beneath");
}

#[test]
fn a_symlink_that_stays_beneath_the_root_is_followed() {
    let place = Place::new();
    symlink("image", place.top.join("root/latest")).unwrap();
    assert_eq!(place.open("root/latest").unwrap().length(), 9);
}

#[test]
fn a_root_may_be_a_symlink_of_the_operator() {
    let place = Place::new();
    symlink("root", place.top.join("link")).unwrap();
    let roots = FileRoots::open_all(&[place.top.join("link")]).unwrap();
    assert!(roots.open(&format!("{}/link/image", place.top.display())).is_ok());
    assert!(roots.open(&format!("{}/root/image", place.top.display())).is_err(), "only as it was spelled");
    // It is opened once: what the link means later does not count.
    fs::remove_file(place.top.join("link")).unwrap();
    symlink("/etc", place.top.join("link")).unwrap();
    assert!(roots.open(&format!("{}/link/passwd", place.top.display())).is_err());
}

#[test]
fn only_regular_files_open() {
    let place = Place::new();
    fs::create_dir(place.top.join("root/directory")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.top.join("root/fifo")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(place.top.join("root/socket")).unwrap();
    place.refused("root/directory", "no regular file");
    place.refused("root/fifo", "no regular file");
    place.refused("root/socket", "no regular file");
    place.refused("root/missing", "no such file");
    place.refused("root/image/below", "no such file");
    place.refused("root/nul\0", "no path");
    let devices = FileRoots::open_all(&["/dev"]).unwrap();
    assert!(devices.open("/dev/zero").unwrap_err().to_string().contains("no regular file"));
}

#[test]
fn the_nearest_root_counts() {
    let place = Place::new();
    let roots = FileRoots::open_all(&[Path::new("/"), &place.top.join("root")]).unwrap();
    assert!(roots.open(&format!("{}/secret", place.top.display())).is_ok());
    symlink("../secret", place.top.join("root/relative")).unwrap();
    assert!(roots.open(&format!("{}/root/relative", place.top.display())).is_err());
}

#[test]
fn a_root_must_be_a_directory() {
    let place = Place::new();
    assert!(FileRoots::open_all(&[place.top.join("secret")]).is_err());
    assert!(FileRoots::open_all(&[place.top.join("nowhere")]).is_err());
    assert!(FileRoots::default().open("/etc/passwd").is_err());
}

#[test]
fn every_change_is_seen() {
    let place = Place::new();
    let path = place.top.join("root/image");

    let source = place.open("root/image").unwrap();
    fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(20).unwrap();
    Place::changed(&source, "from 9 to 20");

    let source = place.open("root/image").unwrap();
    let times = fs::metadata(&path).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_at(b"xxx", 0).unwrap();
    file.set_modified(times.modified().unwrap()).unwrap();
    Place::changed(&source, "written to");

    let source = place.open("root/image").unwrap();
    fs::write(place.top.join("root/new"), b"the image").unwrap();
    fs::rename(place.top.join("root/new"), &path).unwrap();
    Place::changed(&source, "another file");

    let source = place.open("root/image").unwrap();
    fs::remove_file(&path).unwrap();
    Place::changed(&source, "leads nowhere");
}
