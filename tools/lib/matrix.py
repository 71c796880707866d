def write(directory, busybox_tar):
    pass
