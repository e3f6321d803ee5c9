# What the image was made as, for whoever asks in it later. Its packages are listed after the script of the job.
install --directory "${ROOT}/usr/share/imagewright"
printf 'image=%s\nbase=%s\narch=%s\nrunner_version=%s\n' \
  "${IMAGE_NAME}" "${BASE}" "${ARCH}" "${RUNNER_VERSION:-none}" > "${ROOT}/usr/share/imagewright/facts"
