/** The programs that tests start are not the ones to be looked at. */
delete process.env['LD_PRELOAD']
