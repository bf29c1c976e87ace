"""DFT: engines that run here as subprocesses, labelling that resumes, and input sets for engines that run elsewhere."""
