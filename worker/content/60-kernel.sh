# Kernel settings, one `key=value` a line. An unknown key is an error.
if [[ -z ${SYSCTL} ]]; then exit 0; fi

if [[ ${SYSCTL} == *tcp_congestion_control=bbr* ]]; then
  printf 'tcp_bbr\n' > "${ROOT}/etc/modules-load.d/60-imagewright.conf"
  modprobe tcp_bbr
fi
printf '%s\n' "${SYSCTL}" > "${ROOT}/etc/sysctl.d/60-imagewright.conf"
sysctl --load="${ROOT}/etc/sysctl.d/60-imagewright.conf"
