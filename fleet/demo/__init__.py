"""`flotilla demo`: the whole story on one machine, with real processes, real traffic and a real bad model.

    training -> household -> traffic -> story -> command

`training` makes the classifiers, `household` starts and stops manager and agents, `traffic` is the
cameras, `story` tells the acts and checks how each ended, `command` is what the shell calls.
"""
