# SPDX-License-Identifier: GPL-2.0-or-later
# Probes that collect what is missing and name the Debian package that brings it.
AC_DEFUN([MOLT_MISSING_INIT], [molt_missing=""])
# MOLT_PKG(VAR, MODULE, DEBIAN-PACKAGE)
AC_DEFUN([MOLT_PKG], [PKG_CHECK_MODULES([$1], [$2], [], [molt_missing="$molt_missing
  $2 (Debian package $3)"])])
# MOLT_HEADER(HEADER, DEBIAN-PACKAGE)
AC_DEFUN([MOLT_HEADER], [AC_CHECK_HEADER([$1], [], [molt_missing="$molt_missing
  header $1 (Debian package $2)"])])
AC_DEFUN([MOLT_MISSING_CHECK], [AS_IF([test -n "$molt_missing"],
  [AC_MSG_ERROR([missing:$molt_missing])])])

AC_DEFUN([MOLT_ARG_SANITIZERS], [
AC_ARG_ENABLE([sanitizers],
  [AS_HELP_STRING([--enable-sanitizers], [build with address and undefined-behaviour sanitizers (implies --disable-agent)])],
  [], [enable_sanitizers=no])
AS_IF([test "$enable_sanitizers" = yes], [
  enable_agent=no
  MOLT_SAN="-fsanitize=address,undefined -fno-omit-frame-pointer"])
AC_SUBST([MOLT_SAN])])

AC_DEFUN([MOLT_ARG_WERROR], [
AC_ARG_ENABLE([werror], [AS_HELP_STRING([--enable-werror], [warnings are errors (the project's own CI)])],
  [], [enable_werror=no])])

AC_DEFUN([MOLT_WARNINGS], [
MOLT_CFLAGS="-std=gnu11 -Wall -Wextra -fvisibility=hidden"
AS_IF([test "$enable_werror" = yes], [MOLT_CFLAGS="$MOLT_CFLAGS -Werror"])
AC_SUBST([MOLT_CFLAGS])])
