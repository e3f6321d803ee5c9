# An armhf image is an arm64 one that also runs 32-bit programs: the runner agent for arm among them, which needs the
# loader, libatomic and ICU of armhf.
if [[ ${ARCH} != armhf ]]; then exit 0; fi

dpkg --add-architecture armhf
apt-get "${APT[@]}" --option APT::Update::Error-Mode=any update
# The number in ICU's name is that of the release.
icu=$(apt-cache pkgnames libicu | grep --extended-regexp '^libicu[0-9]+$' | sort --version-sort | tail --lines=1)
if [[ -z ${icu} ]]; then
  echo "this release has no package of ICU" >&2
  exit 1
fi
apt-get "${APT[@]}" install libc6:armhf libstdc++6:armhf libatomic1:armhf zlib1g:armhf "${icu}:armhf"
