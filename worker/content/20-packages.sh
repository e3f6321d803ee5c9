# What jobs of a CI expect to find. PACKAGES is one word a package.
read -r -a wanted <<< "${PACKAGES}"
apt-get "${APT[@]}" install "${wanted[@]}"
