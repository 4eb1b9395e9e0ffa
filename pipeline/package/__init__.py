"""The package: the Kaggle dataset with everything that the kernel needs, and the kernel's rehearsal on it.

It stands above ensemble, inference and kernel; the room kaggle and the stages `package` and `rehearse` alone import it.
Begin with build.py. parity_rows.py and workload.py say what goes into the manifest about a member, wheels.py which
libraries come along; rehearse.py runs the kernel, which offline.py cuts off the net. try_faults.py runs it
under everything that faults.py can damage in a scene.
"""
