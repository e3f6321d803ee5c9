# What is in the image, for whoever asks later: in the image itself, and for the build in ${WORK}.
install --directory "${ROOT}/usr/share/imagewright"
# shellcheck disable=SC2016 # the variables are dpkg's
dpkg-query --show --showformat='${db:Status-Abbrev} ${Package} ${Architecture} ${Version}\n' \
  | sed --quiet 's/^ii *//p' | LC_ALL=C sort > "${ROOT}/usr/share/imagewright/packages"
digest=$(sha256sum "${ROOT}/usr/share/imagewright/packages" | cut --delimiter=' ' --fields=1)
printf 'image=%s\nbase=%s\narch=%s\nrunner_version=%s\npackages_sha256=%s\n' \
  "${IMAGE_NAME}" "${BASE}" "${ARCH}" "${RUNNER_VERSION:-none}" "${digest}" \
  | tee "${ROOT}/usr/share/imagewright/facts" > "${WORK}/facts"
